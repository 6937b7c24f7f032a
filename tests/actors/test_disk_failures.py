"""The disk fails at every single call, in every way: requests are refused, runs pause and go on.

Contract: operations.md §5 "Full disk / read-only database".
"""

import sqlite3
import time
from contextlib import closing
from typing import Any

import pytest
import trio
from sqlalchemy import event, func, select
from sqlalchemy.exc import OperationalError

from pipelit.store import StorageUnavailable, Store, schema
from pipelit.store.queries.executions import Idempotency
from tests.kit.flows import BOB
from tests.kit.tree import Tree

LASTS = 3
"""Calls that fail one after another: trying again at once is not enough."""

KINDS = {
    "error": (sqlite3.SQLITE_IOERR, "disk I/O error"),
    "full": (sqlite3.SQLITE_FULL, "database or disk is full"),
    "read-only": (sqlite3.SQLITE_READONLY, "attempt to write a readonly database"),
    "slow": None,
}

STORY = [
    "execution_started",
    *("a pending", "a running", "a success"),
    *("b pending", "b running", "b success"),
    "execution_completed",
]


class Disk:
    """Counts what the writing connection asks of SQLite, and fails some of it."""

    def __init__(self, store: Store, kind: str) -> None:
        self._trouble = KINDS[kind]
        self._calls = self._first = 0
        engine = store._write_engine
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            event.listen(engine, name, self._on_execute)
        event.listen(engine, "commit", self._on_commit)

    def fail_at(self, number: int) -> None:
        """Fail the call of this number from now on, and the next ones."""
        self._calls, self._first = 0, number

    @property
    def has_failed(self) -> bool:
        """Whether it came so far."""
        return self._calls >= self._first

    def _on_execute(self, *_: object) -> None:
        if error := self._fail():
            raise error

    def _on_commit(self, *_: object) -> None:
        if error := self._fail():
            raise OperationalError("COMMIT", None, error)

    def _fail(self) -> sqlite3.OperationalError | None:
        self._calls += 1
        if not self._first <= self._calls < self._first + LASTS:
            return None
        if self._trouble is None:
            time.sleep(0.001)
            return None
        code, said = self._trouble
        error = sqlite3.OperationalError(said)
        error.sqlite_errorcode = code
        return error


async def say(tree: Tree, number: int) -> tuple[str, int]:
    """Say something until it is accepted; return its execution and how often it was refused."""
    key = Idempotency(key=f"k{number}", fingerprint="f", status=200, body={"n": number})
    refused = 0
    while True:
        try:
            execution_id, replay = await tree.post(f"m{number}", idempotency=key)
        except StorageUnavailable as error:
            refused += 1
            await trio.sleep(error.retry_after)
        else:
            assert replay is None, "it was stored although it was refused"
            return execution_id, refused


async def count(tree: Tree) -> int:
    number = select(func.count()).select_from(schema.executions)
    return await tree.store.read(lambda conn: conn.scalar(number)) or 0


async def said(tree: Tree) -> list[Any]:
    """Return what Bob has said, as the transcript has it."""
    words = schema.thread_messages.c
    messages = select(words.message).where(words.thread_id == f"{BOB}:1", words.role == "user")
    return list(await tree.store.read(lambda conn: conn.execute(messages).all()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_call_fails_nothing_acknowledged_is_lost(tree: Tree, kind: str) -> None:
    """From accepting a message to the end of its run: each call fails once, three in a row."""
    await tree.workflow("t > a", "a > b")
    disk, number, refusals = Disk(tree.store, kind), 0, 0
    while True:
        number += 1
        disk.fail_at(number)
        execution_id, refused = await say(tree, number)
        await tree.ended(execution_id)
        if not disk.has_failed:
            break
        refusals += bool(refused)
        assert await tree.story(execution_id) == STORY
        assert [log["status"] for log in await tree.logs(execution_id)] == ["success"] * 3
        assert await count(tree) == number

    assert number > 20, "calls were not seen"
    assert len(await said(tree)) == number
    assert (refusals == 0) == (kind == "slow")
    assert refusals < number, "a run was never in the way"
    assert not tree.system.records(event="actor_crashed")
    assert tree.store.statistics().storage_ok
    with closing(sqlite3.connect(str(tree.store._write_engine.url.database))) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
