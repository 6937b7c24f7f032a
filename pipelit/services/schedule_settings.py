"""The settings of a scheduled job: what they default to, and which combinations are valid.

Contract: schedules.md "ScheduledJob object", nodes.md "Schedule actions".
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from pipelit.engine.cron import (
    MAX_LENGTH,
    NEVER_MATCHES,
    CronError,
    find_zone,
    parse_cron,
)
from pipelit.engine.schedule import (
    MAX_INTERVAL,
    MAX_TIMEOUT,
    NOT_A_ZONE,
    never_matches,
    rhythm_problems,
)
from pipelit.errors import Invalid
from pipelit.store.queries.schedules import ScheduleRow

DEFAULTS: Mapping[str, Any] = {
    "description": "",
    "trigger_node_id": None,
    "interval_seconds": None,
    "cron": None,
    "timezone": None,
    "catch_up": "one",
    "total_repeats": 0,
    "max_retries": 3,
    "timeout_seconds": 600,
    "trigger_payload": None,
}
NODE_INTERVAL = 300
"""Seconds between runs of a node that says nothing."""

_MAX_INT64 = 2**63 - 1
_CATCH_UPS = ("one", "skip", "all")


def cron_problems(text: str) -> tuple[str, ...]:
    """Return what is wrong with the form of an expression."""
    if len(text) > MAX_LENGTH:
        return (f"must be at most {MAX_LENGTH} characters",)
    try:
        parse_cron(text)
    except CronError as error:
        return error.problems
    return ()


def zone_problems(name: str) -> tuple[str, ...]:
    """Return what is wrong with the name of a time zone."""
    return () if find_zone(name) is not None else (NOT_A_ZONE,)


def new_settings(fields: Mapping[str, Any], *, now: datetime, where: str) -> dict[str, Any]:
    """Return all settings of a new job, from those that were given.

    Args:
        where: `body` or `extra_config`, for the problems.

    Raises:
        Invalid: the combination is not valid.
    """
    return _checked({**DEFAULTS, **fields}, now=now, where=where)


def merge_settings(row: ScheduleRow, fields: Mapping[str, Any], *, now: datetime) -> ScheduleRow:
    """Return the job with other settings; a zone does not outlive its expression.

    Raises:
        Invalid: the combination is not valid.
    """
    values = {"interval_seconds": row.interval_seconds, "cron": row.cron, **fields}
    kept = row.timezone if values["cron"] is not None else None
    values = _checked({"timezone": kept, **values}, now=now, where="body")
    return msgspec.structs.replace(row, **values)


def _checked(values: dict[str, Any], *, now: datetime, where: str) -> dict[str, Any]:
    cron = values["cron"]
    found = rhythm_problems(
        interval_seconds=values["interval_seconds"], cron=cron, timezone=values["timezone"]
    )
    if cron is not None and never_matches(cron, now):
        found.append(("cron", NEVER_MATCHES))
    if found:
        raise Invalid(problems=[place(where, field, message) for field, message in found])
    return values if cron is None else {**values, "timezone": values["timezone"] or "UTC"}


def place(where: str, field: str, message: str) -> str:
    """Write a problem as the contract does; *field* "" is the whole."""
    return f"{where}.{field}: {message}" if field else f"{where}: {message}"


class _Setting(NamedTuple):
    name: str
    check: Callable[[Any], tuple[str, ...]]
    nullable: bool = False


def _integer(low: int, high: int = _MAX_INT64) -> Callable[[Any], tuple[str, ...]]:
    def check(value: Any) -> tuple[str, ...]:
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int:
            return ("must be an integer",)
        if value < low:
            return (f"must be >= {low}",)
        return (f"must be <= {high}",) if value > high else ()

    return check


def _text(check: Callable[[str], tuple[str, ...]]) -> Callable[[Any], tuple[str, ...]]:
    return lambda value: check(value) if isinstance(value, str) else ("must be a string",)


def _catch_up(value: str) -> tuple[str, ...]:
    return () if value in _CATCH_UPS else (f"must be one of: {', '.join(_CATCH_UPS)}",)


_NODE_SETTINGS = (
    _Setting("interval_seconds", _integer(1, MAX_INTERVAL), nullable=True),
    _Setting("cron", _text(cron_problems), nullable=True),
    _Setting("timezone", _text(zone_problems), nullable=True),
    _Setting("catch_up", _text(_catch_up)),
    _Setting("total_repeats", _integer(0)),
    _Setting("max_retries", _integer(0)),
    _Setting("timeout_seconds", _integer(1, MAX_TIMEOUT)),
    _Setting(
        "trigger_payload",
        lambda value: () if isinstance(value, dict) else ("must be an object",),
    ),
)


def node_settings(extra_config: Mapping[str, Any], *, now: datetime) -> dict[str, Any]:
    """Read the settings of a job out of its node's `extra_config`; other keys are not ours.

    Raises:
        Invalid: with every problem.
    """
    given = {s.name: extra_config[s.name] for s in _NODE_SETTINGS if s.name in extra_config}
    problems = [
        place("extra_config", setting.name, message)
        for setting in _NODE_SETTINGS
        if setting.name in given
        for message in _check(setting, given[setting.name])
    ]
    if given.get("interval_seconds") is None and given.get("cron") is None:
        given["interval_seconds"] = NODE_INTERVAL
    if problems:
        combined = {name: given.get(name) for name in ("interval_seconds", "cron", "timezone")}
        problems += [place("extra_config", *found) for found in rhythm_problems(**combined)]
        raise Invalid(problems=problems)
    whole = {n: int(v) if isinstance(v, float) else v for n, v in given.items()}
    whole["trigger_payload"] = whole.get("trigger_payload") or None
    settings = new_settings(whole, now=now, where="extra_config")
    return {name: settings[name] for name in (s.name for s in _NODE_SETTINGS)}


def _check(setting: _Setting, value: Any) -> tuple[str, ...]:
    if value is None:
        return () if setting.nullable else ("must not be null",)
    return setting.check(value)
