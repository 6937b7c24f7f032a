"""Questions on both databases: answered or expired once, and nobody waits for what has come."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import trio
from sqlalchemy import URL, Connection, insert, select

from pipelit.store import Store
from pipelit.store.database import Purpose, open_engine
from pipelit.store.queries import questions
from pipelit.store.queries.journal import Owner, Step, write_step
from pipelit.store.schema import executions, metadata, pending_tasks, users, workflows
from tests.kit.store import running_store

NOW = datetime(2026, 2, 3, tzinfo=UTC)
OWNER = Owner("server", 1)
ROUNDS = 30


@pytest.fixture
async def store(url: URL) -> AsyncIterator[Store]:
    """A database with running executions that each ask something."""
    engine = open_engine(url, Purpose.MIGRATE)
    metadata.create_all(engine)
    engine.dispose()
    async with running_store(url) as running:
        await running.write(_fill)
        yield running


def _fill(conn: Connection) -> None:
    conn.execute(insert(users).values(id=1, username="ada", created_at=NOW))
    row = {"id": 1, "owner_id": 1, "name": "w", "slug": "w"}
    conn.execute(insert(workflows).values(**row, created_at=NOW, updated_at=NOW))
    for number in range(ROUNDS):
        conn.execute(
            insert(executions).values(
                id=f"e{number}",
                created_seq=number + 1,
                workflow_id=1,
                thread_id="t",
                status="running",
                source="manual",
                trigger={},
                limit_seconds=900,
                created_at=NOW,
                last_activity_at=NOW,
                owner=OWNER.node_id,
                epoch=OWNER.epoch,
            )
        )
        conn.execute(
            insert(pending_tasks).values(
                task_id=f"q{number}",
                execution_id=f"e{number}",
                node_id="a",
                iteration="0",
                kind="interrupt_before",
                created_at=NOW,
                expires_at=NOW + timedelta(seconds=300),
            )
        )


def interrupt(number: int) -> Step:
    return Step(
        execution_id=f"e{number}",
        owner=OWNER,
        now=NOW,
        active_us=0,
        waits_for=(f"q{number}",),
    )


async def status(store: Store, number: int) -> str:
    wanted = select(executions.c.status).where(executions.c.id == f"e{number}")
    return str(await store.read(lambda conn: conn.scalar(wanted)))


async def test_an_answer_is_never_overlooked(store: Store, url: URL) -> None:
    """However the answer and the step that begins to wait meet, also on two servers."""
    kept = []

    async def begin_to_wait(number: int) -> None:
        written = await store.write(lambda conn: write_step(conn, interrupt(number)))
        kept.append(written.interrupted)

    async def answer(other: Store, number: int) -> None:
        assert await other.write(
            lambda conn: questions.answer(conn, f"e{number}", f"q{number}", "yes", now=NOW)
        )

    async with running_store(url) as other:
        for number in range(ROUNDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(begin_to_wait, number)
                nursery.start_soon(answer, other, number)
            assert await status(store, number) == "running"
    assert len(kept) == ROUNDS


async def test_a_question_is_closed_once(store: Store) -> None:
    """By its answer or by its expiry; an execution that waits is woken by either."""
    for number in (0, 1):
        await store.write(lambda conn, n=number: write_step(conn, interrupt(n)))  # type: ignore[misc]
    late = NOW + timedelta(seconds=300)

    def answer(conn: Connection, task_id: str, now: datetime) -> bool:
        return questions.answer(conn, f"e{task_id[1:]}", task_id, "yes", now=now)

    first = [await store.write(lambda conn: answer(conn, "q0", NOW)) for _ in range(2)]
    too_late = await store.write(lambda conn: answer(conn, "q1", late))
    expired = [
        await store.write(lambda conn: questions.expire(conn, now=late, limit=1000))
        for _ in range(2)
    ]

    assert first == [True, False]
    assert too_late is False
    assert expired[1] == []
    assert set(expired[0]) == {f"e{number}" for number in range(1, ROUNDS)}
    assert [await status(store, number) for number in (0, 1)] == ["running"] * 2
    found = await store.read(lambda conn: questions.list_answers(conn, "e1"))
    assert found == [questions.Answer("q1", None)]
    assert await store.read(questions.next_expiry) is None
