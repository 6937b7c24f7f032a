"""The shared memory over a real store: facts, people, episodes, procedures."""

from datetime import timedelta

import pytest
import trio.testing
from sqlalchemy import insert, select

from pipelit.clock import Ids
from pipelit.nodes.identify_user import Encounter
from pipelit.nodes.memory import MemoryFailed
from pipelit.services.agent_memory import StoredMemory
from pipelit.store import Store
from pipelit.store.queries.facts import like_pattern
from pipelit.store.schema import episodes, facts, procedures
from tests.services.conftest import HandClock


@pytest.fixture
def memory(store: Store, clock: HandClock) -> StoredMemory:
    return StoredMemory(store, clock, Ids.seeded(1))


async def set_facts(memory, clock, **values):
    for key, value in values.items():
        clock.advance(1)
        assert await memory.set_fact(key, value, "world_knowledge", overwrite=True) == "created"


async def keys(memory, query, **options):
    options = {"limit": 10, "min_confidence": 0.0} | options
    return [fact.key for fact in await memory.search_facts(query, **options)]


async def test_a_fact_is_created_updated_or_left_alone(memory, store, clock):
    """Writing the same key confirms it; skipping touches nothing."""
    written = [
        await memory.set_fact("city", value, "correction", overwrite=overwrite)
        for value, overwrite in (("Bern", True), ("Basel", True), ("Chur", False))
    ]

    assert written == ["created", "updated", "skipped"]
    (row,) = await store.read(lambda conn: conn.execute(select(facts)).mappings().all())
    assert (row["value"], row["times_confirmed"], row["scope"]) == ("Basel", 2, "global")
    assert (row["fact_type"], row["confidence"]) == ("correction", 1.0)


async def test_reading_a_fact_counts(memory, store, clock):
    """By key, by query and in the list, each once."""
    await set_facts(memory, clock, city="Bern")

    assert (await memory.find_fact("city")).value == "Bern"
    assert await memory.find_fact("nothing") is None
    await memory.search_facts("bern", limit=5, min_confidence=0.5)
    await memory.newest_facts(limit=5, min_confidence=0.5)

    count = await store.read(lambda conn: conn.scalar(select(facts.c.access_count)))
    assert count == 3


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("user name", ["user_name"]),
        ("USER-name", ["user_name"]),
        (" bern ", ["city"]),
        ("100%", ["share"]),
        ("0% o", ["share"]),
        ("%", ["share"]),
        ("!", []),
        ("cm", ["size"]),
        ("zürich", ["place"]),
        ("x" * 100_000, []),
        ("_", ["size", "share", "place", "city", "user_name"]),
    ],
)
async def test_a_search_finds_what_holds_the_query(memory, clock, query, found):
    """In any case, in key or JSON text; spaces, `_`, `-` match any text, `%` and `!` themselves."""
    await set_facts(
        memory,
        clock,
        user_name="Ann",
        city="Bern",
        place="in zürich",
        share="100% ours",
        size={"cm": 180},
    )

    assert await keys(memory, query) == found


async def test_the_surest_facts_come_first(memory, store, clock):
    """Then the last changed; those below the wanted confidence do not come at all."""
    await set_facts(memory, clock, a=1, b=1, c=1)
    for key, confidence in (("a", 0.9), ("b", 0.2)):
        change = facts.update().where(facts.c.key == key).values(confidence=confidence)
        await store.write(lambda conn, change=change: conn.execute(change).rowcount)

    assert await keys(memory, "1") == ["c", "a", "b"]
    assert await keys(memory, "1", min_confidence=0.5) == ["c", "a"]
    assert await keys(memory, "1", limit=1) == ["c"]
    newest = await memory.newest_facts(limit=2, min_confidence=0.0)
    assert [fact.key for fact in newest] == ["c", "b"]


async def test_only_global_facts_are_found(memory, store, clock):
    """What belongs to a user stays with that user."""
    await store.write(lambda conn: conn.execute(insert(facts), [user_fact(clock, 0)]).rowcount)

    assert await memory.find_fact("k0") is None
    assert await keys(memory, "k0") == []


def user_fact(clock, number, **more):
    return {
        "id": f"f{number}",
        "scope": "user",
        "user_id": "chat:3",
        "key": f"k{number}",
        "value": number,
        "fact_type": "user_preference",
        "access_count": number,
        "created_at": clock.now(),
        "updated_at": clock.now(),
        **more,
    }


def episode(clock, number, **more):
    return {
        "id": f"e{number}",
        "agent_id": "workflow:1",
        "user_id": "chat:3",
        "summary": f"talk {number}",
        "success": True,
        "started_at": clock.now() + timedelta(hours=number),
        "ended_at": clock.now() + timedelta(hours=number),
        "created_at": clock.now(),
        **more,
    }


async def test_episodes_and_procedures_are_those_of_the_workflow_and_global_ones(
    memory, store, clock
):
    """Newest episodes first; inactive procedures and other workflows do not show."""
    past = [
        episode(clock, 1),
        episode(clock, 2, agent_id="global"),
        episode(clock, 3, agent_id="workflow:2"),
        episode(clock, 4, summary=None),
    ]
    known = [
        {
            "id": name,
            "agent_id": agent,
            "name": name,
            "description": "Talk nicely",
            "procedure_type": "prompt_template",
            "times_succeeded": wins,
            "is_active": active,
            "created_at": clock.now(),
        }
        for name, agent, wins, active in (
            ("own", "workflow:1", 1, True),
            ("all", "global", 2, True),
            ("off", "global", 3, False),
            ("foreign", "workflow:2", 4, True),
        )
    ]

    def fill(conn):
        conn.execute(insert(episodes), past)
        conn.execute(insert(procedures), known)

    await store.write(fill)

    summaries = await memory.search_episodes("TALK", workflow_id=1, limit=5)
    found = await memory.search_procedures("nicely", workflow_id=1, limit=5)

    assert list(summaries) == ["talk 2", "talk 1"]
    assert [procedure.name for procedure in found] == ["all", "own"]


async def test_somebody_is_new_once(memory, clock):
    """The second visit finds the same user, counts, and takes a new name over."""
    encounter = Encounter(canonical_id="chat:3", display_name="ada", workflow_id=1)
    nameless = Encounter(canonical_id="chat:3", display_name=None, workflow_id=1)

    first = await memory.meet(encounter)
    clock.advance(60)
    second = await memory.meet(nameless)

    assert (first.is_new, first.total_conversations, first.preferences) == (True, 1, {})
    assert (second.is_new, second.total_conversations) == (False, 2)
    assert second.user_id == first.user_id
    assert second.display_name == "ada"
    assert second.first_seen == first.first_seen
    assert (first.facts, first.history) == ((), ())


async def test_what_is_known_of_somebody_is_theirs_and_of_this_workflow(memory, store, clock):
    """At most 20 facts by use and 5 ended runs, newest first."""
    known = [user_fact(clock, n) for n in range(25)]
    past = [
        *(episode(clock, n) for n in range(7)),
        episode(clock, 8, user_id="chat:4"),
        episode(clock, 9, agent_id="workflow:2"),
        episode(clock, 10, ended_at=None),
    ]

    def fill(conn):
        conn.execute(insert(facts), known)
        conn.execute(insert(episodes), past)

    await store.write(fill)

    met = await memory.meet(Encounter(canonical_id="chat:3", display_name=None, workflow_id=1))

    assert [fact.value for fact in met.facts] == list(range(24, 4, -1))
    assert [past.summary for past in met.history] == [f"talk {n}" for n in (6, 5, 4, 3, 2)]


async def test_a_store_out_of_reach_is_a_memory_failure(memory, store):
    """The text is the store's own and names no file."""
    store.stop()
    await trio.testing.wait_all_tasks_blocked()

    with pytest.raises(MemoryFailed, match="Server is shutting down"):
        await memory.set_fact("k", "v", "correction", overwrite=True)


def test_patterns_escape_what_like_would_read():
    """The escape character too."""
    assert like_pattern(" a b__c-d ") == "%a%b%c%d%"
    assert like_pattern("5% !x") == "%5!%%!!x%"
