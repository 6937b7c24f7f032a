"""Agents build workflows and find built ones. Contract: node-types.md §8.8, §8.9."""

import json

import pytest
from sqlalchemy import insert, update

from pipelit.services.workflow_builder import choose_slug
from pipelit.store.schema import credentials, nodes, workflows
from tests.kit.tools import ADA, MAIN, OTHER, Bench, add_edges, add_nodes, bench

__all__ = ["bench"]

NOTES = """
name: Release notes
tags: [release]
trigger: manual
steps:
  - {id: sum, type: code, snippet: "return 1"}
  - {id: answer, type: reply_chat, message: "{{ sum.output }}"}
"""


async def made_workflow(bench: Bench, workflow_id: int) -> object:
    (row,) = [row for row in await bench.rows(workflows) if row.id == workflow_id]
    return row


async def test_an_agent_builds_a_workflow_of_its_owner(bench: Bench) -> None:
    """Active and private, with further tags; nodes and edges are stored."""
    made = await bench.call("workflow_create", dsl=NOTES, tags="mine, release")
    row = await made_workflow(bench, made["workflow_id"])
    stored = [node for node in await bench.rows(nodes) if node.workflow_id == row.id]

    assert made == {
        "success": True,
        "workflow_id": row.id,
        "slug": "release-notes",
        "node_count": 3,
        "edge_count": 2,
        "mode": "created",
    }
    assert (row.owner_id, row.is_active, row.is_public) == (ADA, True, False)
    assert row.tags == ["release", "mine"]
    assert {node.node_id for node in stored} == {"trigger_manual_1", "sum", "answer"}


async def test_a_call_made_again_builds_nothing_new(bench: Bench) -> None:
    """Another call of the same document takes another slug."""
    first = await bench.call("workflow_create", dsl=NOTES, key="k")
    again = await bench.call("workflow_create", dsl=NOTES, key="k")
    other = await bench.call("workflow_create", dsl=NOTES)

    assert again == first
    assert other["slug"] == "release-notes-2"


async def test_a_workflow_inherits_the_model_of_the_agent(bench: Bench) -> None:
    now = bench.clock.now()
    credential = {"id": 7, "created_by_id": ADA, "name": "c", "credential_type": "llm"}
    detail = {"clear": {}, "secret": {}}
    await bench.change(
        insert(credentials).values(**credential, detail=detail, created_at=now, updated_at=now)
    )
    await bench.store.write(lambda conn: add_nodes(conn, MAIN, {"model": "ai_model"}, now=now))
    await bench.store.write(lambda conn: add_edges(conn, MAIN, ("model", "helper", "llm")))
    config = {"model_name": "gpt-4o", "extra_config": {}}
    model = update(nodes).where(nodes.c.node_id == "model")
    await bench.change(model.values(config=config, llm_credential_id=7))

    dsl = "name: x\nmodel: inherit\nsteps:\n  - {type: agent, id: a}\n"
    made = await bench.call("workflow_create", dsl=dsl)
    (copy,) = [
        row
        for row in await bench.rows(nodes)
        if row.workflow_id == made["workflow_id"] and row.component_type == "ai_model"
    ]

    assert (copy.llm_credential_id, copy.config["model_name"]) == (7, "gpt-4o")


async def test_a_fork_knows_what_it_was_made_of(bench: Bench) -> None:
    """Its source is left as it was."""
    source = await bench.call("workflow_create", dsl=NOTES)
    patches = "patches: [{action: update_config, step_id: sum, config: {timeout: 5}}]"
    fork = await bench.call("workflow_create", dsl=f"based_on: release-notes\n{patches}")
    row = await made_workflow(bench, fork["workflow_id"])

    assert (fork["mode"], fork["slug"], fork["node_count"]) == ("forked", "release-notes-fork", 3)
    assert row.forked_from_id == source["workflow_id"]


BAD_CREDENTIAL = (
    "name: x\nsteps:\n  - {type: agent, id: a, model: {credential_id: 99, model_name: m}}"
)


@pytest.mark.parametrize(
    ("dsl", "error"),
    [
        ("name: x\nsteps: []", "`steps` must be a non-empty list"),
        ("[]", "DSL must be a YAML mapping (dict)"),
        ("steps: [{type: code}]", "DSL requires a `name` field"),
        ("name: x\nsteps: [{type: dance}]", None),
        (
            "name: x\nmodel: inherit\nsteps: [{type: agent, id: a}]",
            "Cannot inherit model: parent node has no config",
        ),
        ("based_on: nowhere\npatches: []", "Source workflow 'nowhere' not found"),
        ("based_on: w2\npatches: []", "Source workflow 'w2' not found"),
        (BAD_CREDENTIAL, "Credential not found"),
    ],
)
async def test_a_document_that_does_not_compile_leaves_nothing(
    bench: Bench, dsl: str, error: str | None
) -> None:
    """The workflows of others cannot be forked, not even by an admin's agent."""
    said = await bench.error("workflow_create", dsl=dsl)

    assert said == error or (error is None and said.startswith("Unknown step type 'dance'"))
    assert len(await bench.rows(workflows)) == 2


async def test_without_the_agent_s_workflow_nothing_is_built(bench: Bench) -> None:
    error = await bench.error("workflow_create", as_workflow=99, dsl=NOTES)

    assert error == "Parent workflow not found"


def test_a_taken_slug_gets_a_number() -> None:
    """Words of the API are taken."""
    assert choose_slug("a", []) == "a"
    assert choose_slug("a", ["a", "a-2", "a-4"]) == "a-3"
    assert choose_slug("node-types", []) == "node-types-2"
    assert len(choose_slug("a" * 255, ["a" * 255])) == 255


async def test_workflows_are_found_with_what_they_can_do(bench: Bench) -> None:
    """Own and public ones, but not the agent's own."""
    now = bench.clock.now()
    made = await bench.call("workflow_create", dsl=NOTES)
    public = update(workflows).where(workflows.c.id == OTHER)
    await bench.change(public.values(is_public=True, description="For everybody"))
    await bench.store.write(lambda conn: add_nodes(conn, OTHER, {"in": "trigger_chat"}, now=now))
    await bench.store.write(lambda conn: add_edges(conn, OTHER, ("in", "helper", "")))
    await bench.execution("e1", OTHER, "completed")

    needs = {"triggers": ["trigger_chat"], "tools": ["web_search"]}
    answer = await bench.call("workflow_discover", requirements=json.dumps(needs))
    best = answer["matches"][0]

    assert answer["total_searched"] == 2
    assert [row["workflow_id"] for row in answer["matches"]] == [OTHER, made["workflow_id"]]
    assert (best["score"], best["recommendation"]) == (0.6, "fork_and_patch")
    assert best["gaps"]["tools"] == ["web_search"]
    assert best["capabilities"] == {
        "triggers": ["trigger_chat"],
        "node_types": ["agent"],
        "tools": ["whoami"],
        "model_names": [],
    }
    assert (best["success_rate"], best["execution_count"]) == (1.0, 1)


async def test_what_may_not_be_called_is_not_found(bench: Bench) -> None:
    """Others' private workflows, inactive and deleted ones."""
    now = bench.clock.now()
    made = [await bench.call("workflow_create", dsl=NOTES) for _ in range(2)]
    first, second = (update(workflows).where(workflows.c.id == m["workflow_id"]) for m in made)
    await bench.change(first.values(is_active=False))
    await bench.change(second.values(deleted_at=now))

    answer = await bench.call("workflow_discover", requirements="{}", limit=1000)

    assert answer == {"success": True, "matches": [], "total_searched": 0}


@pytest.mark.parametrize(
    ("requirements", "error"),
    [
        ("{", "Invalid JSON: Expecting property name"),
        ("[]", "requirements must be a JSON object"),
        ('{"tools": "x"}', "tools must be a list of strings"),
        ("x" * 65_537, "requirements must be at most 65536 characters"),
    ],
)
async def test_requirements_that_cannot_be_read_are_refused(
    bench: Bench, requirements: str, error: str
) -> None:
    said = await bench.error("workflow_discover", requirements=requirements)

    assert said.startswith(error)
