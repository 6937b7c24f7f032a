"""Compares what a server says with what the first-run document says, by the document's own rules.

A few values vary and are compared by their form; everything else is to the letter. A value that
appears twice, such as an id or a datetime of one object, must be equal in both places.
"""

import json
import re
from typing import Any

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?")
_KEY = re.compile(r"[A-Za-z0-9_-]{43}")
_VERSION = re.compile(r"\d+\.\d+\.\d+\S*")
_DURATIONS = frozenset({"duration_ms", "total_duration_ms"})
_SHORT_MS = 1
"""Durations up to this are said of many things in the document, so equality proves nothing."""


class Mismatch(AssertionError):
    """The server said something else. The text names the place."""


class Matcher:
    """Remembers which real value stands for which value of the document."""

    def __init__(self) -> None:
        self._real: dict[Any, Any] = {}  # {what the document says, with its object: real value}
        self._events: dict[tuple[str, int], Any] = {}  # {(execution, seq): the event}

    def fill_in(self, value: Any) -> Any:
        """Replace the document's ids and key in *value* by the real ones."""
        if isinstance(value, dict):
            return {name: self.fill_in(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.fill_in(inner) for inner in value]
        if isinstance(value, str):
            return _UUID.sub(lambda found: str(self._real.get(found[0], found[0])), value)
        return value

    def key(self) -> str | None:
        """Return the API key the server gave, if it did yet."""
        for said, real in self._real.items():
            if isinstance(said, tuple) and said[0] == "key":
                return str(real)
        return None

    def match(self, said: Any, real: Any, where: str = "") -> None:
        """Compare; raise `Mismatch` at the first difference."""
        if isinstance(said, dict):
            self._match_object(said, real, where)
        elif isinstance(said, list):
            self._match_list(said, real, where)
        elif isinstance(said, str):
            self._match_text(said, real, where)
        elif isinstance(said, bool) or said is None or isinstance(real, bool):
            _require(said is real, where, said, real)
        else:
            _require(isinstance(real, int | float) and said == real, where, said, real)

    def match_call(self, said: dict[str, Any], real: Any, where: str) -> None:
        """Compare a request to the provider: descriptions and spacing of arguments are free."""
        self.match(_call_form(said), _call_form(real), where)

    def copies(self, execution_id: str) -> list[dict[str, Any]]:
        """Return the events seen of an execution, without channel, in their order."""
        return [
            event for (owner, _), event in sorted(self._events.items()) if owner == execution_id
        ]

    def _match_object(self, said: dict[str, Any], real: Any, where: str) -> None:
        _require(isinstance(real, dict), where, said, real)
        missing, more = said.keys() - real.keys(), real.keys() - said.keys()
        _require(not missing, f"{where}: missing {sorted(missing)}", said, real)
        _require(not more, f"{where}: not in the contract: {sorted(more)}", said, real)
        for name, inner in said.items():
            place = f"{where}.{name}"
            if not self._match_varying(said, name, inner, real[name], place):
                self.match(inner, real[name], place)
        if {"seq", "channel", "data"} <= said.keys():
            self._match_copies(real, where)

    def _match_copies(self, real: dict[str, Any], where: str) -> None:
        """Every copy of an event must be equal but for its channel."""
        copy = {name: value for name, value in real.items() if name != "channel"}
        first = self._events.setdefault((real["execution_id"], real["seq"]), copy)
        _require(first == copy, f"{where}: another copy of this event", first, copy)

    def _match_list(self, said: list[Any], real: Any, where: str) -> None:
        _require(isinstance(real, list), where, said, real)
        _require(len(said) == len(real), f"{where}: {len(real)} entries", said, real)
        for index, (inner, outer) in enumerate(zip(said, real, strict=True)):
            self.match(inner, outer, f"{where}[{index}]")

    def _match_text(self, said: str, real: Any, where: str) -> None:
        _require(isinstance(real, str), where, said, real)
        if _UUID.fullmatch(said):
            _require(bool(_UUID.fullmatch(real)), f"{where}: no id", said, real)
            self._bind(said, real, where)
        else:
            _require(self.fill_in(said) == real, where, self.fill_in(said), real)

    def _match_varying(
        self, owner: dict[str, Any], name: str, said: Any, real: Any, where: str
    ) -> bool:
        """Compare a value of *owner* that varies; tell whether it is one."""
        if name in _DURATIONS and isinstance(said, int):
            _require(type(real) is int and real >= 0, where, said, real)
            if said > _SHORT_MS:
                self._bind(("duration", said), real, where)
        elif name == "timestamp" and isinstance(said, float | int):
            _require(type(real) in (int, float) and real > 1.7e9, where, said, real)
        elif isinstance(said, str) and _DATETIME.fullmatch(said):
            _require(isinstance(real, str) and bool(_DATETIME.fullmatch(real)), where, said, real)
            if (identity := _identity(owner)) is not None:
                self._bind((*identity, said), real, where)
        elif name == "key" and isinstance(said, str):
            _require(isinstance(real, str) and bool(_KEY.fullmatch(real)), where, said, real)
            self._bind(("key", said), real, where)
        elif name == "version":
            _require(isinstance(real, str) and bool(_VERSION.fullmatch(real)), where, said, real)
        elif name == "id" and "role" in owner:
            _require(isinstance(real, str) and real != "", where, said, real)
            self._bind(("message id", said), real, where)
        elif name == "message" and "code" in owner:
            _require(isinstance(real, str) and real != "", where, said, real)
        else:
            return False
        return True

    def _bind(self, said: Any, real: Any, where: str) -> None:
        known = self._real.setdefault(said, real)
        _require(known == real, f"{where}: said before as", known, real)


def _identity(said: dict[str, Any]) -> tuple[Any, ...] | None:
    """Name the object a datetime belongs to, so that its other mentions can be found again."""
    if said.get("role") == "user":
        return ("said", said.get("content", said.get("text")))
    if "role" in said:
        return ("message", said.get("id", said.get("text")))
    if "workflow_slug" in said:
        return ("execution", said["execution_id"])
    for mark in ("credential_type", "slug", "component_type", "duration_ms"):
        if mark in said and "id" in said:
            return (mark, said["id"])
    return None


def _call_form(body: Any) -> Any:
    """Bring a call into the form in which only what counts is left."""
    form = json.loads(json.dumps(body))
    if not isinstance(form, dict):
        return form
    for tool in form.get("tools", []):
        for parameter in tool["function"]["parameters"].get("properties", {}).values():
            _require("description" in parameter, "parameter without a description", "", parameter)
            parameter["description"] = "…"
    for message in form.get("messages", []):
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return form


def _require(holds: bool, where: str, said: Any, real: Any) -> None:
    if not holds:
        raise Mismatch(f"{where}\n  expected {said!r}\n  got      {real!r}")
