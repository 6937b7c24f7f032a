"""The graph form, and what every form shares: limits, slugs. engine.md §27.1, §27.5."""

import pytest

from pipelit.engine.dsl import check_document, compile_document
from tests.kit.dsl import NOBODY, drawn, error_of


def test_the_graph_form_is_taken_as_it_is() -> None:
    """Nodes, edges and positions; edges may be absent, the name may stand at the top."""
    text = """
workflow: {name: Two, description: d, tags: [t]}
nodes:
  - {id: in, type: trigger_chat, position: {x: 10, y: 20.4}}
  - {id: s, type: switch, label: S}
  - {id: ask, type: human_confirmation, config: {extra_config: {prompt: "?"}, model_name: no}}
edges:
  - {source: in, target: s}
  - {source: s, target: ask, type: conditional, condition_value: a, priority: 2}
"""
    compiled = compile_document(text, NOBODY)
    bare = check_document("name: one\nnodes: [{id: a, type: wait}]", NOBODY)

    assert (compiled.name, compiled.description, compiled.tags) == ("Two", "d", ("t",))
    assert drawn(compiled) == ["in → s", "s → ask ?a"]
    assert (compiled.nodes[0].position_x, compiled.nodes[0].position_y) == (10, 20)
    assert compiled.nodes[2].interrupt_before
    assert compiled.nodes[2].config["model_name"] == ""
    assert compiled.edges[1].priority == 2
    assert (bare.valid, bare.node_count, bare.edge_count) == (True, 1, 0)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("nodes: [{type: magic}]", "Unknown node type 'magic' in node 1. Valid: agent, "),
        ("nodes: [{type: wait, id: '-'}]", "Invalid node ID '-' in node 1"),
        ("nodes: [{type: wait, config: 1}]", "`config` and `position` must be mappings in node 1"),
        ("nodes: [{type: wait, position: {x: a}}]", "Entry 1 has a position or priority that"),
        (
            "nodes: []\nedges: [{type: odd}]",
            "Unknown edge type 'odd' in edge 1. Valid: direct, con",
        ),
        (
            "nodes: []\nedges: [{label: odd}]",
            "Unknown edge label 'odd' in edge 1. Valid: '', llm, ",
        ),
    ],
)
def test_a_broken_graph_form_is_a_parse_error(body: str, error: str) -> None:
    """The entry is named by its position."""
    assert error_of(f"name: x\n{body}").startswith(f"Parse error: {error}")


def test_the_same_node_twice_is_a_build_error() -> None:
    """Ids are unique in a workflow."""
    text = "name: x\nnodes: [{id: a, type: wait}, {id: a, type: wait}]"

    assert error_of(text) == "Graph build error: Duplicate node ID 'a'"


def test_a_workflow_has_its_limits_here_too() -> None:
    """1000 nodes and 5000 edges."""
    nodes = "\n".join(f"  - {{id: n{i}, type: wait}}" for i in range(1001))
    few = "\n".join(f"  - {{id: n{i}, type: wait}}" for i in range(80))
    edges = "\n".join(f"  - {{source: n{i}, target: n{j}}}" for i in range(80) for j in range(63))

    assert error_of(f"name: x\nnodes:\n{nodes}") == (
        "Graph build error: Workflow node limit reached."
    )
    assert error_of(f"name: x\nnodes:\n{few}\nedges:\n{edges}") == (
        "Graph build error: Workflow edge limit reached."
    )


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Release Notes", "release-notes"),
        ("  A_b -- c!  ", "a-b-c"),
        ("Über uns", "ber-uns"),
        ("!!!", "workflow"),
        ("x" * 255, "x" * 255),
    ],
)
def test_a_slug_is_made_of_the_name(name: str, slug: str) -> None:
    """Lower case, words and hyphens."""
    text = f"name: {name!r}\nnodes: []"

    assert compile_document(text, NOBODY).slug == slug
