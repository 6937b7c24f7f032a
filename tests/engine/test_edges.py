"""What may be joined to what, row by row of edges.md, and by generated edges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine import specs
from pipelit.engine.definition import END, EdgeDef
from pipelit.engine.edges import (
    EDGE_LABELS,
    Violation,
    first_violation,
    identity,
    is_compatible,
    rule_violation,
)

TYPES = {
    "chat": "trigger_chat",
    "agent": "agent",
    "model": "ai_model",
    "parser": "output_parser",
    "skill": "skill",
    "calc": "calculator",
    "recall": "memory_read",
    "whoami": "whoami",
    "sorter": "categorizer",
    "deep": "deep_agent",
    "switch": "switch",
    "loop": "loop",
    "filter": "filter",
    "code": "code",
    "wait": "wait",
    "odd": "unheard_of",
}


def edge(source: str, target: str, label: str = "", value: str | None = None) -> EdgeDef:
    """Build an edge; a *value*, even an empty one, makes it conditional."""
    return EdgeDef(
        id=0,
        source_node_id=source,
        target_node_id=target,
        edge_type="direct" if value is None else "conditional",
        edge_label=label,
        condition_value=value or "",
    )


STRING_ROWS = [
    (edge("switch", "agent", value=""), "Conditional edges require a non-empty condition_value"),
    (edge("switch", "", value="a"), "Conditional edges require a non-empty target_node_id"),
    (edge("code", "agent", value="a"), "Conditional edges can only originate from 'switch' nodes"),
    (edge("gone", "agent", value="a"), "Conditional edges can only originate from 'switch' nodes"),
]

LIST_ROWS = [
    (edge("switch", "agent", "llm", "a"), "Conditional edges cannot carry a label"),
    (edge("code", ""), "Edge requires a non-empty target_node_id"),
    (edge("gone", "agent"), "Edge references unknown source node 'gone'"),
    (edge("code", "gone"), "Edge references unknown target node 'gone'"),
    (edge("code", END, "tool"), "Edge references unknown target node '__end__'"),
    (edge("code", "code"), "A node cannot be connected to itself"),
    (edge("odd", "model"), "Node type 'ai_model' cannot be a step in the flow"),
    (edge("code", "chat"), "Trigger nodes cannot be the target of an edge"),
    (
        edge("code", "agent", "llm"),
        "Source type 'code' output 'output' is not compatible with target input 'model'",
    ),
    (
        edge("model", "agent", "tool"),
        "Source type 'ai_model' output 'model' is not compatible with target input 'tools'",
    ),
    (
        edge("calc", "agent", "memory"),
        "Source type 'calculator' output 'result' is not compatible with target input 'memory'",
    ),
    (
        edge("odd", "agent", "skill"),
        "Source type 'unheard_of' output 'output' is not compatible with target input 'skills'",
    ),
    (
        edge("parser", "agent", "output_parser"),
        "Node type 'agent' does not accept 'output_parser' connections",
    ),
    (edge("calc", "sorter", "tool"), "Node type 'categorizer' does not accept 'tools' connections"),
    (edge("model", "code", "llm"), "Node type 'code' does not accept 'model' connections"),
    (edge("model", "odd", "llm"), "Node type 'unheard_of' does not accept 'model' connections"),
    (edge("code", "agent", "loop_body"), "loop_body edges can only originate from 'loop' nodes"),
    (edge("code", "agent", "loop_return"), "loop_return edges can only target 'loop' nodes"),
    (
        edge("whoami", "agent"),
        "Node type 'whoami' can only be connected through a sub-component handle",
    ),
    (edge("code", "recall"), "Node type 'memory_read' cannot be a step in the flow"),
    (edge("chat", "skill"), "Node type 'skill' cannot be a step in the flow"),
    (
        edge("agent", "model"),
        "Source type 'agent' output 'messages' (messages) "
        "is not compatible with target 'ai_model' input 'model' (llm)",
    ),
    (
        edge("filter", "agent"),
        "Source type 'filter' output 'filtered' (array) "
        "is not compatible with target 'agent' input 'messages' (messages)",
    ),
]

ACCEPTED = [
    edge("chat", "agent"),
    edge("chat", "filter"),
    edge("agent", END),
    edge("switch", "filter", value="a"),
    edge("switch", END, value="a"),
    edge("filter", "loop"),
    edge("loop", "agent"),
    edge("loop", "wait", "loop_body"),
    edge("wait", "loop", "loop_return"),
    edge("code", "odd"),
    edge("odd", "agent"),
    edge("agent", "filter"),
    edge("calc", "agent"),
    edge("calc", "agent", "tool"),
    edge("recall", "agent", "tool"),
    edge("recall", "agent", "memory"),
    edge("recall", "deep", "memory"),
    edge("recall", "sorter", "memory"),
    edge("parser", "sorter", "output_parser"),
    edge("skill", "deep", "skill"),
    edge("model", "sorter", "llm"),
]


@pytest.mark.parametrize(("candidate", "message"), STRING_ROWS)
def test_a_broken_condition_is_a_plain_string(candidate: EdgeDef, message: str) -> None:
    """Rows 1–3 answer with a plain detail, in that order."""
    assert first_violation(candidate, TYPES) == Violation("string", (message,))


@pytest.mark.parametrize(("candidate", "message"), LIST_ROWS)
def test_a_wrong_connection_is_a_listed_error(candidate: EdgeDef, message: str) -> None:
    """Rows 4–16 answer with one validation error."""
    assert first_violation(candidate, TYPES) == Violation("list", (message,))


@pytest.mark.parametrize("candidate", ACCEPTED, ids=str)
def test_a_sound_connection_is_accepted(candidate: EdgeDef) -> None:
    """An edge that breaks no row may stand."""
    assert first_violation(candidate, TYPES) is None


def test_two_unknown_ends_are_reported_together() -> None:
    """Rows 6 and 7 answer at once."""
    violation = first_violation(edge("x", "y"), TYPES)

    assert violation is not None
    assert violation.messages == (
        "Edge references unknown source node 'x'",
        "Edge references unknown target node 'y'",
    )


def test_the_same_edge_twice_is_a_conflict_but_not_with_itself() -> None:
    """Row 17: source, target, type, label and value decide; an edge under change may stay."""
    stored = EdgeDef(id=1, source_node_id="code", target_node_id="agent", priority=3)
    twin = EdgeDef(id=0, source_node_id="code", target_node_id="agent")

    assert first_violation(twin, TYPES, [stored]) == Violation(
        "conflict", ("Edge already exists.",)
    )
    assert first_violation(stored, TYPES, [stored]) is None


TICKED = {
    "string": "string message messages any",
    "number": "number any",
    "boolean": "boolean any",
    "object": "object any",
    "array": "array any",
    "message": "object message messages any",
    "messages": "array messages any",
    "image": "image any",
    "file": "file any",
    "any": "string number boolean object array message messages image file any",
}


@pytest.mark.parametrize("source", TICKED)
def test_compatibility_is_the_published_matrix(source: str) -> None:
    """Exactly the ticked cells of engine.md §2.2 are compatible."""
    assert {target for target in TICKED if is_compatible(source, target)} == set(
        TICKED[source].split()
    )


ENDS = st.sampled_from([*TYPES, "", "gone", END])
EDGES = st.builds(
    EdgeDef,
    id=st.integers(0, 3),
    source_node_id=ENDS,
    target_node_id=ENDS,
    edge_type=st.sampled_from(["direct", "conditional"]),
    edge_label=st.sampled_from(EDGE_LABELS),
    condition_value=st.sampled_from(["", "a", "default"]),
)


@given(EDGES, st.lists(EDGES, max_size=5))
def test_an_accepted_edge_joins_known_nodes_as_their_roles_allow(
    candidate: EdgeDef, others: list[EdgeDef]
) -> None:
    """No accepted edge enters a trigger, walks an attached node or repeats another edge."""
    if first_violation(candidate, TYPES, others) is not None:
        return

    assert candidate.source_node_id in TYPES
    assert candidate.source_node_id != candidate.target_node_id
    assert all(o.id == candidate.id or identity(o) != identity(candidate) for o in others)
    if candidate.target_node_id == END:
        assert candidate.edge_label == ""
        return
    source, target = TYPES[candidate.source_node_id], TYPES[candidate.target_node_id]
    assert not specs.is_trigger(target)
    if candidate.edge_label == "":
        assert not specs.is_attach_only(source)
        assert not specs.is_attach_only(target)
    if candidate.is_conditional:
        assert source == "switch"


@given(EDGES)
def test_validation_and_creation_agree_on_edges_between_known_nodes(candidate: EdgeDef) -> None:
    """What creation lists for an edge with sound conditions, whole-workflow validation repeats."""
    violation = first_violation(candidate, TYPES)

    if violation is None:
        assert rule_violation(candidate, TYPES) is None
    elif violation.form == "list":
        assert rule_violation(candidate, TYPES) == violation.messages[0]
