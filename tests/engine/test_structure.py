"""The shape of generated graphs: cycles are found exactly where there are any."""

from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine.definition import END, EdgeDef, NodeDef
from pipelit.engine.structure import Flow, graph_errors
from pipelit.engine.validate import validate_scope, validate_workflow

IDS = [f"n{number}" for number in range(7)]
ENDS = st.sampled_from(IDS)
PAIRS = st.lists(st.tuples(ENDS, ENDS).filter(lambda pair: pair[0] != pair[1]), max_size=14)


def graph(pairs: list[tuple[str, str]]) -> Flow:
    """Build a flow of plain steps."""
    nodes = [NodeDef(id=i, node_id=node_id, component_type="code") for i, node_id in enumerate(IDS)]
    edges = [
        EdgeDef(id=i, source_node_id=source, target_node_id=target)
        for i, (source, target) in enumerate(pairs)
    ]
    return Flow(nodes, edges)


@given(PAIRS)
def test_a_cycle_is_reported_exactly_when_there_is_one(pairs: list[tuple[str, str]]) -> None:
    """The standard library's sorter is the judge."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for source, target in pairs:
        sorter.add(target, source)
    try:
        sorter.prepare()
        has_cycle = False
    except CycleError:
        has_cycle = True

    assert bool(graph_errors(graph(pairs))) == has_cycle


@given(PAIRS)
def test_a_reported_cycle_is_a_path_of_the_graph(pairs: list[tuple[str, str]]) -> None:
    """Every step of it is an edge, and it ends where it began, nowhere twice before."""
    for error in graph_errors(graph(pairs)):
        path = error.removeprefix("Cycle detected without a loop node: ").split(" → ")

        assert path[0] == path[-1]
        assert len(set(path[:-1])) == len(path) - 1
        assert set(pairwise(path)) <= set(pairs)


@given(st.integers(1, 5), PAIRS)
def test_a_body_never_holds_its_own_loop(first: int, pairs: list[tuple[str, str]]) -> None:
    """Whatever leads back, the loop stays outside its body."""
    flow = graph(pairs)
    start = EdgeDef(id=99, source_node_id="n0", target_node_id=f"n{first}", edge_label="loop_body")
    looped = Flow(list(flow.nodes.values()), [*flow.edges, start])

    body = looped.body("n0")

    assert f"n{first}" in body
    assert "n0" not in body


NODES = st.lists(
    st.builds(
        NodeDef,
        id=st.integers(1, 99),
        node_id=st.sampled_from([*IDS, "a-b", "1"]),
        component_type=st.sampled_from(
            ["trigger_chat", "agent", "ai_model", "switch", "loop", "filter", "code", "odd"]
        ),
        config=st.fixed_dictionaries(
            {}, optional={"extra_config": st.none() | st.just({"rules": 1, "subagents": 2})}
        ),
    ),
    unique_by=lambda node: node.node_id,
    max_size=7,
)
EDGES = st.lists(
    st.builds(
        EdgeDef,
        id=st.integers(1, 99),
        source_node_id=ENDS,
        target_node_id=st.sampled_from([*IDS, "", END]),
        edge_type=st.sampled_from(["direct", "conditional"]),
        edge_label=st.sampled_from(["", "llm", "tool", "loop_body", "loop_return"]),
        condition_value=st.sampled_from(["", "a"]),
        condition_mapping=st.none() | st.just({"a": "n1", "b": 2}),
    ),
    max_size=10,
)


@given(NODES, EDGES, st.sets(ENDS))
def test_any_workflow_is_answered(
    nodes: list[NodeDef], edges: list[EdgeDef], scope: set[str]
) -> None:
    """Imported data of any shape gets a report, and a scope never more than the whole."""
    report = validate_workflow(nodes, edges)

    errors = validate_scope(nodes, edges, scope)

    edge_errors = [error for error in errors if error.startswith(("Edge ", "Conditional "))]
    assert set(edge_errors) <= set(report.errors)
