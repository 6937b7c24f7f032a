"""Runs the snippet of a `code` node inside the sandbox: `python3 run.py JOB RESULT_DESCRIPTOR`.

The server mounts this file there; it never imports it. Only the standard library is at hand, of
whatever Python 3 the host has. Contract: node-types.md §10.2.

JOB is a JSON file {"code": text, "names": {name: value}}; the result is JSON {"value", "text"}, or
`{}` if the snippet gave none.
"""

import ast
import builtins
import json
import linecache
import sys
import traceback
from types import TracebackType
from typing import Any

_FILE = "<code>"
_KEEP = "__keep_locals__"
_WRAPPER = f"""
def __snippet__():
    try:
        pass
    finally:
        {_KEEP}[0]({_KEEP}[1]())
"""


class Attributes(dict[str, Any]):
    """An object whose keys can be read as attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def main() -> None:
    """Run the job; exit code 1 and the trace of its own lines on stderr if the snippet raises."""
    sys.excepthook = _show
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file, object_hook=Attributes)
    reply = _dump(describe(run(job["code"], job["names"])))
    with open(int(sys.argv[2]), "wb", closefd=False) as result:
        result.write(reply.encode())


def run(code: str, names: dict[str, Any]) -> Any:
    """Run *code* as the body of a function; return what it returns, else its `result`."""
    tree = ast.parse(_WRAPPER, _FILE)
    body = ast.parse(code, _FILE).body
    guarded: Any = tree.body[0]
    guarded.body[0].body = body or [ast.Pass(lineno=1, col_offset=0)]
    linecache.cache[_FILE] = (len(code), None, code.splitlines(keepends=True), _FILE)
    kept: dict[str, Any] = {}
    scope = {"__name__": "__main__", "json": json, **names, _KEEP: (kept.update, builtins.locals)}
    exec(compile(tree, _FILE, "exec"), scope)
    returned = scope["__snippet__"]()
    return kept.get("result") if returned is None else returned


def describe(value: Any) -> dict[str, Any]:
    """Return the reply for a value: itself, and its text form."""
    if value is None:
        return {}
    text = _dump(value) if isinstance(value, (dict, list, tuple)) else str(value)
    return {"value": value, "text": text}


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    while trace is not None and trace.tb_frame.f_code.co_filename != _FILE:
        trace = trace.tb_next
    traceback.print_exception(kind, error, trace)


if __name__ == "__main__":
    main()
