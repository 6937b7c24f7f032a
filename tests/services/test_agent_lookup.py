"""Who stands behind a tool: its agent, the agent's model and tools, the workflow's owner."""

import pytest
from sqlalchemy import insert

from pipelit.engine.dsl import ModelChoice
from pipelit.engine.specs import complete_config
from pipelit.services.agent_lookup import (
    AgentLookup,
    find_caller,
    find_parent,
    find_workflow_principal,
)
from pipelit.store import Store
from pipelit.store.schema import credentials, edges, nodes, users, workflows
from tests.services.conftest import HandClock

NODES = (
    ("agent_a", "agent", {"system_prompt": "A"}),
    ("agent_b", "agent", {}),
    ("model", "ai_model", {"model_name": "gpt-4o", "temperature": 0.5}),
    ("tool", "whoami", {}),
    ("search", "web_search", {"extra_config": {"searxng_url": "http://s.example"}}),
    ("search_2", "web_search", {"extra_config": {"searxng_url": "http://t.example"}}),
    ("loose", "whoami", {}),
)
EDGES = (
    ("model", "agent_b", "llm", 0),
    ("tool", "agent_a", "tool", 5),
    ("tool", "agent_b", "tool", 1),
    ("search", "agent_b", "tool", 0),
    ("search_2", "agent_b", "tool", 0),
    ("gone", "agent_b", "tool", 0),
    ("lost", "nobody", "memory", 0),
)


@pytest.fixture
async def stored(store: Store, clock: HandClock) -> Store:
    now = clock.now()

    def fill(conn):
        conn.execute(
            insert(users),
            [
                {
                    "id": 1,
                    "username": "ada",
                    "role": "admin",
                    "kind": "human",
                    "created_by_id": None,
                    "created_at": now,
                },
                {
                    "id": 2,
                    "username": "bot",
                    "role": "admin",
                    "kind": "agent",
                    "created_by_id": 1,
                    "created_at": now,
                },
            ],
        )
        conn.execute(
            insert(workflows),
            [
                {
                    "id": n,
                    "name": "w",
                    "slug": f"w{n}",
                    "owner_id": n,
                    "created_at": now,
                    "updated_at": now,
                }
                for n in (1, 2)
            ],
        )
        conn.execute(
            insert(credentials),
            [
                {
                    "id": 7,
                    "created_by_id": 1,
                    "name": "c",
                    "credential_type": "llm",
                    "detail": {"clear": {}, "secret": {}},
                    "created_at": now,
                    "updated_at": now,
                }
            ],
        )
        for node_id, component_type, config in NODES:
            conn.execute(
                insert(nodes).values(
                    workflow_id=1,
                    node_id=node_id,
                    component_type=component_type,
                    config=complete_config(component_type, config),
                    llm_credential_id=7 if node_id == "model" else None,
                    updated_at=now,
                )
            )
        for source, target, label, priority in EDGES:
            conn.execute(
                insert(edges).values(
                    workflow_id=1,
                    source_node_id=source,
                    target_node_id=target,
                    edge_label=label,
                    priority=priority,
                )
            )

    await store.write(fill)
    return store


@pytest.mark.parametrize(
    ("tool", "parent", "is_there"),
    [
        ("tool", "agent_b", True),
        ("search", "agent_b", True),
        ("lost", "nobody", False),
    ],
)
async def test_the_parent_is_the_target_of_the_first_tool_edge(stored, tool, parent, is_there):
    """In edge order; it may be gone."""
    found = await AgentLookup(stored).find_parent(1, tool)

    assert found is not None
    assert found.node_id == parent
    assert (found.node is not None) is is_there


async def test_a_tool_without_such_an_edge_has_no_parent(stored):
    """Nor has the model, whose edge has another label."""
    for tool in ("loose", "model", "nowhere"):
        assert await stored.read(lambda conn, tool=tool: find_parent(conn, 1, tool)) is None


async def test_an_agent_lends_its_model_and_its_tools(stored):
    """The first tool of a type; edges from nodes that are gone lend nothing."""
    caller = await stored.read(lambda conn: find_caller(conn, 1, "agent_b"))
    poor = await stored.read(lambda conn: find_caller(conn, 1, "agent_a"))

    assert caller.model == ModelChoice(credential_id=7, model_name="gpt-4o", temperature=0.5)
    assert caller.tools == {"whoami": {}, "web_search": {"searxng_url": "http://s.example"}}
    assert (poor.node_id, poor.model) == ("agent_a", None)


async def test_a_topology_may_inherit_from_the_agent_that_asks(stored):
    """The agent's model for `inherit`; without an agent that is an error."""
    text = "name: x\nmodel: inherit\nsteps:\n  - {type: agent, id: a}\n"
    lookup = AgentLookup(stored)

    good = await lookup.check_topology(text, 1, "tool")
    bad = await lookup.check_topology(text, 1, "loose")

    assert (good.valid, good.errors) == (True, ())
    assert bad.errors == (
        "Model resolution error: Cannot inherit model: parent node has no config",
    )


async def test_tools_act_for_the_owner_of_the_workflow(stored):
    """An agent account is never an admin, and acts for who made it."""
    ada, bot, nobody = [
        await stored.read(lambda conn, w=w: find_workflow_principal(conn, w)) for w in (1, 2, 3)
    ]

    assert (ada.user_id, ada.is_admin, ada.acts_for) == (1, True, None)
    assert (bot.user_id, bot.is_admin, bot.acts_for) == (2, False, 1)
    assert nobody is None
