"""The child process of `pipelit.nodes.worker`: `python -m pipelit.nodes.worker_main`.

Reads one JSON job per line, writes one JSON reply per line, and may be killed at any time. It knows
no secret and opens nothing. What it may use is limited before the first job is read.

Jobs:    {"job": "render", "text", "context", "python_literals"}, {"job": "search", "pattern",
         "subject"}, {"job": "find_all", "pattern", "subject"}
Replies: {"value": str | bool | list} or {"error": kind, "message"}; kinds: "expression", "pattern",
         "timeout".
"""

import json
import re
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from pipelit.engine.expressions import MAX_DIGITS, ExpressionFailed, Renderer

MEMORY_BYTES = 256 * 1024 * 1024
CPU_SECONDS_PER_JOB = 5
SEARCH_SECONDS = 0.05


class _SearchTimeout(Exception):
    """The regular expression used up its processor time."""


def main() -> None:
    """Serve jobs until the input ends."""
    _limit_resources()
    sys.set_int_max_str_digits(MAX_DIGITS + 1)
    warnings.simplefilter("ignore")  # of users' patterns; nobody reads them here
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's business
    signal.signal(signal.SIGVTALRM, _stop_search)
    jobs = _Jobs()
    _write({"value": "ready"})
    for line in sys.stdin.buffer:
        _renew_cpu_limit()
        _write(jobs.run(json.loads(line)))


class _Jobs:
    """What can be asked for."""

    def __init__(self) -> None:
        self._renderers = {False: Renderer(), True: Renderer(python_literals=True)}
        self._handlers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "render": self._render,
            "search": partial(self._match, _is_found),
            "find_all": partial(self._match, re.Pattern.findall),
        }

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        return self._handlers[job["job"]](job)

    def _render(self, job: dict[str, Any]) -> dict[str, Any]:
        renderer = self._renderers[job["python_literals"]]
        try:
            return {"value": renderer.render(renderer.parse(job["text"]), job["context"])}
        except ExpressionFailed as error:
            return {"error": "expression", "message": str(error)[:2000]}

    def _match(
        self, ask: Callable[[re.Pattern[str], str], Any], job: dict[str, Any]
    ) -> dict[str, Any]:
        try:
            pattern = re.compile(job["pattern"])
        except (re.error, RecursionError, OverflowError) as error:
            return {"error": "pattern", "message": str(error)[:2000]}
        # Processor time, not wall time: a busy machine must not fail a harmless pattern.
        signal.setitimer(signal.ITIMER_VIRTUAL, SEARCH_SECONDS)
        try:
            return {"value": ask(pattern, job["subject"])}
        except _SearchTimeout:
            return {"error": "timeout", "message": ""}
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _is_found(pattern: re.Pattern[str], subject: str) -> bool:
    return pattern.search(subject) is not None


def _stop_search(_signal: int, _frame: object) -> None:
    raise _SearchTimeout


def _limit_resources() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _renew_cpu_limit() -> None:
    # Ends a job whose server died and cannot kill it any more.
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + CPU_SECONDS_PER_JOB
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _write(reply: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
