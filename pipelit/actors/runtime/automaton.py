"""What a legal supervision stream looks like: a small automaton that reads it.

Installed in the test kit, so every test checks promise 16 besides its own.
"""

from collections.abc import Iterable
from enum import StrEnum

from pipelit.actors.runtime.records import Record


class Phase(StrEnum):
    """What has been said of a path so far."""

    GONE = "gone"
    UP = "up"
    DOWN = "down"
    """Crashed, and to be restarted."""
    CRASHED_FOR_GOOD = "crashed for good"
    """The last record, unless the crash was one too many: then it gives up."""
    GIVING_UP = "giving up"


# {phase: {event: phase after it}}; `actor_crashed` is followed by what its `next` says.
_AFTER_START = {"actor_stopped": Phase.GONE, "actor_gave_up": Phase.GONE}
_LEGAL: dict[Phase, dict[str, Phase]] = {
    Phase.GONE: {"actor_started": Phase.UP, "actor_crashed": Phase.DOWN} | _AFTER_START,
    Phase.UP: {"actor_restarted": Phase.UP, "actor_crashed": Phase.DOWN} | _AFTER_START,
    Phase.DOWN: {"actor_restarted": Phase.UP, "actor_crashed": Phase.DOWN} | _AFTER_START,
    Phase.CRASHED_FOR_GOOD: {
        "actor_started": Phase.UP,
        "actor_crashed": Phase.DOWN,
        "actor_gave_up": Phase.GONE,
        "actor_stopped": Phase.GONE,
    },
    Phase.GIVING_UP: {"actor_gave_up": Phase.GONE},
}
_AFTER_CRASH = {
    "restart": Phase.DOWN,
    "stop": Phase.CRASHED_FOR_GOOD,
    "escalate": Phase.GIVING_UP,
}
_ENDS = (Phase.GONE, Phase.CRASHED_FOR_GOOD)
LIFE_EVENTS = frozenset(
    {"actor_started", "actor_restarted", "actor_crashed", "actor_gave_up", "actor_stopped"}
)


def find_fault(records: Iterable[Record], *, lives: int | None) -> str | None:
    """Return what is wrong with *records*, counted from the first of a system, or `None`.

    *lives*: how many lives began, if the system has ended: then each has had its last record,
    once. `None`: it still runs.
    """
    phases: dict[str, Phase] = {}
    incarnations: dict[str, int] = {}
    last_records = 0
    for expected, record in enumerate(records, start=1):
        if record.seq != expected:
            return f"seq {record.seq} where {expected} was due"
        if record.event not in LIFE_EVENTS:
            continue
        before = phases.get(record.actor, Phase.GONE)
        after = _LEGAL[before].get(record.event)
        if after is None:
            return f"{record.event} of {record.actor}, which is {before}"
        if record.event == "actor_crashed":
            after = _AFTER_CRASH[str(record.detail["next"])]
            if record.error is None:
                return f"a crash of {record.actor} without an error"
        last = incarnations.get(record.actor, 0)
        if not _follows(record, before, last):
            return f"incarnation {record.incarnation} of {record.actor} after {last}, {before}"
        if after in _ENDS and not (
            before is Phase.CRASHED_FOR_GOOD and record.event == "actor_gave_up"
        ):
            last_records += 1
        phases[record.actor] = after
        incarnations[record.actor] = record.incarnation
    if lives is None:
        return None
    alive = [path for path, phase in phases.items() if phase not in _ENDS]
    if alive:
        return f"no last record of {', '.join(alive)}"
    return None if last_records == lives else f"{last_records} last records of {lives} lives"


def _follows(record: Record, before: Phase, last: int) -> bool:
    if record.event == "actor_restarted":
        return record.incarnation == last + 1 > 1
    if record.event == "actor_started":
        return record.incarnation == 1
    if before in _ENDS:
        return record.event == "actor_gave_up" or record.incarnation in (0, 1)
    return record.incarnation in (last, last + 1)
