"""What epics and tasks ask of both databases alike."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec
import pytest
from sqlalchemy import URL, Connection, insert, update

from pipelit.store import Store
from pipelit.store.database import Purpose, open_engine
from pipelit.store.queries.epics import delete_epics, list_epics
from pipelit.store.queries.roll_up import Costs, sum_costs
from pipelit.store.queries.tasks import Tally, cancel_open_tasks, list_states, list_tasks, tally
from pipelit.store.schema import epics, executions, metadata, tasks, users, workflows
from tests.kit.store import running_store

NOW = datetime(2026, 2, 3, tzinfo=UTC)
TAGS = (["q1", "x"], ["q1", "q2"], ["a,", "b"], ['say "hi"'], ["ä", ","], [])


@pytest.fixture
async def store(url: URL) -> AsyncIterator[Store]:
    """One epic per list of tags; the first has a task of each status."""
    engine = open_engine(url, Purpose.MIGRATE)
    metadata.create_all(engine, tables=[users, workflows, epics, tasks, executions])
    engine.dispose()
    async with running_store(url) as running:
        await running.write(_fill)
        yield running


def _fill(conn: Connection) -> None:
    same = {"title": "T", "created_at": NOW, "updated_at": NOW}
    for number, tags in enumerate(TAGS):
        conn.execute(insert(epics).values(id=f"ep-{number}", tags=tags, **same))
    for status in ("pending", "blocked", "running", "completed", "failed", "cancelled"):
        row = {"id": f"tk-{status}", "epic_id": "ep-0", "status": status, "depends_on": ["tk-x"]}
        conn.execute(insert(tasks).values(**row, tags=["t"], notes=[], **same))


async def test_tags_are_found_whole(store: Store) -> None:
    """Case-sensitive, whatever characters they hold; no tags are no filter."""
    expected = {
        ("q1",): "10",
        ("q2", "x"): "10",
        ("Q1",): "",
        ("q",): "",
        (",",): "4",
        ("a,",): "2",
        ('say "hi"',): "3",
        ("ä",): "4",
        ("%",): "",
        (): "543210",
    }

    def search(conn: Connection) -> dict[tuple[str, ...], tuple[str, int]]:
        found = {}
        for tags in expected:
            rows, total = list_epics(conn, status=None, tags=tags, limit=10, offset=0)
            found[tags] = "".join(row.id[3:] for row in rows), total
        return found

    found = await store.read(search)
    assert found == {tags: (numbers, len(numbers)) for tags, numbers in expected.items()}


async def test_an_epic_adds_up_its_own_tasks(store: Store) -> None:
    """All they used, whatever became of them; one without tasks has nothing."""

    def use(conn: Connection) -> tuple[Tally, Tally]:
        conn.execute(update(tasks).values(actual_tokens=7, actual_micros=2**40))
        return tally(conn, "ep-0"), tally(conn, "ep-1")

    some, none = await store.write(use)

    assert some == Tally(
        total_tasks=6,
        completed_tasks=1,
        failed_tasks=1,
        spent_tokens=42,
        spent_micros=6 * 2**40,
    )
    assert set(msgspec.structs.astuple(none)) == {0}


async def test_open_tasks_are_cancelled_and_told_as_they_were(store: Store) -> None:
    """The finished ones stay."""
    before = await store.write(lambda conn: cancel_open_tasks(conn, "ep-0", now=NOW))

    assert {row.status for row in before} == {"pending", "blocked", "running"}
    states = await store.read(lambda conn: list_states(conn, "ep-0"))
    assert sorted(state["status"] for state in states) == [
        *["cancelled"] * 4,
        "completed",
        "failed",
    ]
    assert {tuple(state["depends_on"]) for state in states} == {("tk-x",)}


async def test_an_epic_takes_its_tasks_along(store: Store) -> None:
    """By the foreign key; ids that are not there are skipped."""
    gone = await store.write(lambda conn: delete_epics(conn, ["ep-1", "ep-none", "ep-0"]))

    assert gone == ["ep-0", "ep-1"]
    _, total = await store.read(lambda conn: list_tasks(conn, epic_id=None, limit=0, offset=0))
    assert total == 0


async def test_costs_are_summed_over_the_family(store: Store) -> None:
    """Descendants without a task, and what is retried, each once."""

    def run(conn: Connection) -> Costs:
        same = {"created_at": NOW, "updated_at": NOW}
        conn.execute(insert(users).values(id=1, username="ada", created_at=NOW))
        conn.execute(insert(workflows).values(id=1, owner_id=1, name="W", slug="w", **same))
        for seq, (name, more) in enumerate(
            {
                "old": {},
                "old-child": {"parent_execution_id": "old"},
                "new": {"retry_of": "old"},
                "child": {"parent_execution_id": "new"},
                "grandchild": {"parent_execution_id": "child"},
                "owned": {"parent_execution_id": "new"},
                "below-owned": {"parent_execution_id": "owned"},
                "stranger": {},
            }.items()
        ):
            values = {"id": name, "created_seq": seq, "workflow_id": 1, "thread_id": "t"}
            values |= {"status": "completed", "source": "manual", "trigger": {}}
            values |= {"limit_seconds": 1, "created_at": NOW, "last_activity_at": NOW}
            values |= {"total_tokens": 10**seq, "cost_micros": 1, "llm_calls": 2}
            conn.execute(insert(executions).values(**values, tool_invocations=3, **more))
        owned = update(tasks).where(tasks.c.id == "tk-running").values(execution_id="owned")
        conn.execute(owned)
        return sum_costs(conn, "new")

    assert await store.write(run) == Costs(
        actual_tokens=11_111, actual_micros=5, llm_calls=10, tool_invocations=15
    )
