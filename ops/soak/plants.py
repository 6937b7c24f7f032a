"""Bugs to plant: the product broken on purpose, to see that the auditor notices.

Each one replaces a function of the product by its name. A plant that no longer finds its function
fails loudly, so it moves along with the code.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import msgspec
import outcome

from ops.soak.chance import replaced
from pipelit.actors import children, schedule_units
from pipelit.actors.hub import Announcement, Hub
from pipelit.engine.outcome import Usage
from pipelit.nodes import model_call
from pipelit.nodes.base import RunIdentity
from pipelit.store.commit import Committer
from pipelit.store.queries import dispatches, executions, journal, ownership, questions

Change = Callable[[Any], Any]
"""(the real function) -> the broken one."""


class Plant(msgspec.Struct, frozen=True):
    """One bug. `planted` breaks the product for the length of a block."""

    bug: str
    planted: Callable[[], AbstractContextManager[None]]


def _breaking(owner: Any, name: str, change: Change) -> Callable[[], AbstractContextManager[None]]:
    @contextmanager
    def planted() -> Iterator[None]:
        with replaced(owner, name, change(getattr(owner, name))):
            yield

    return planted


def _lose_batches(real: Any) -> Any:
    count = 0

    def attempt(self: Committer, units: Any) -> Any:
        nonlocal count
        count += 1
        if count % 60:
            return real(self, units)
        real(self, ())  # connects
        connection: Any = self._connection
        transaction = connection.begin()
        results = [outcome.capture(unit, connection) for unit in units]
        transaction.rollback()
        return results

    return attempt


def _skip_a_number(real: Any) -> Any:
    def changes(step: journal.Step) -> Any:
        more = 2 if len(step.logs) > 2 else 0
        found = real(step)
        return found | {"more": found["more"] + more}

    return changes


def _keep_owner(real: Any) -> Any:
    def changes(step: journal.Step) -> Any:
        found = real(step)
        if step.end is not None:
            found |= {"owner": step.owner.node_id, "epoch": step.owner.epoch}
        return found

    return changes


def _log_twice(real: Any) -> Any:
    def insert(conn: Any, table: Any, execution_id: str, rows: Any) -> None:
        twice = table.name == "execution_logs" and len(rows) == 1
        real(conn, table, execution_id, rows * 2 if twice else rows)

    return insert


def _bill_less(real: Any) -> Any:
    def spent(*given: Any) -> Any:
        usage, warnings = real(*given)
        odd = usage.total_tokens % 2
        return (Usage(llm_calls=1) if odd else usage), warnings

    return spent


def _tell_twice(real: Any) -> Any:
    def announce(self: Hub, said: Announcement) -> None:
        real(self, said)
        if said.type == "execution_completed":
            real(self, said)

    return announce


def _replay_too_late(real: Any) -> Any:
    def events_after(conn: Any, execution_id: str, after: int, **more: Any) -> Any:
        return real(conn, execution_id, after + (after > 0), **more)

    return events_after


def _fire_twice(real: Any) -> Any:
    def fire(conn: Any, job: Any, workflow: Any, tick: schedule_units.Tick) -> Any:
        other = msgspec.structs.replace(tick, execution_id=tick.execution_id[::-1])
        start = schedule_units._prepare(conn, job, workflow, other)  # noqa: SLF001 - as above
        if isinstance(start, executions.NewExecution):
            executions.create(conn, start)
        return real(conn, job, workflow, tick)

    return fire


def _forget_children(real: Any) -> Any:
    count = 0

    def key(*given: Any) -> str:
        nonlocal count
        count += 1
        return f"{real(*given)}/{count}"

    return key


def _handle_some(real: Any) -> Any:
    def unit(conn: Any, kind: Any, execution_id: str) -> bool:
        done = real(conn, kind, execution_id)
        return bool(done) and execution_id[0] not in "012345"

    return unit


def _take_any_answer(real: Any) -> Any:
    def answer(*given: Any, **more: Any) -> bool:
        real(*given, **more)
        return True

    return answer


PLANTS: dict[str, Plant] = {
    "lost-batch": Plant(
        "some writes are acknowledged and not committed",
        _breaking(Committer, "_attempt", _lose_batches),
    ),
    "no-recovery": Plant(
        "nobody takes up what a dead server left behind",
        _breaking(ownership, "find_orphans", lambda _: lambda *_, **__: []),
    ),
    "forgotten-key": Plant(
        "a repeated request starts again",
        _breaking(executions, "find_key", lambda _: lambda *_, **__: None),
    ),
    "skipped-number": Plant(
        "numbers of events have gaps", _breaking(journal, "_changes", _skip_a_number)
    ),
    "kept-owner": Plant(
        "an ended execution is not let go", _breaking(journal, "_changes", _keep_owner)
    ),
    "double-log": Plant("results are logged twice", _breaking(journal, "_insert", _log_twice)),
    "cheap-calls": Plant(
        "some model calls are not billed", _breaking(model_call, "_spent", _bill_less)
    ),
    "told-twice": Plant(
        "some events are delivered twice", _breaking(Hub, "_announce", _tell_twice)
    ),
    "late-replay": Plant(
        "a subscriber that comes back misses one event",
        _breaking(executions, "events_after", _replay_too_late),
    ),
    "double-fire": Plant(
        "a time of a schedule starts two runs", _breaking(schedule_units, "_fire", _fire_twice)
    ),
    "second-answer": Plant(
        "a question takes every answer", _breaking(questions, "answer", _take_any_answer)
    ),
    "forgotten-child": Plant(
        "a parent that is taken up again starts its children again",
        _breaking(children, "child_key", _forget_children),
    ),
    "lost-dispatch": Plant(
        "some failures are never handled", _breaking(dispatches, "finish_once", _handle_some)
    ),
    "unkeyed-request": Plant(
        "requests of workflows carry no idempotency key",
        _breaking(RunIdentity, "idempotency_key", lambda _: ""),
    ),
}
