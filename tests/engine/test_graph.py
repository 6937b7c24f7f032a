"""What one execution runs: the nodes its trigger reaches, and what serves them."""

from msgspec.structs import replace

from pipelit.engine.graph import Plan, build_snapshot
from tests.engine.runs import edges_of, nodes_of, plan_of


def test_only_what_the_trigger_reaches_is_in_scope() -> None:
    """Nodes of other triggers, and broken ones elsewhere, do not matter."""
    plan = plan_of("t > a", "a > b", "t2 > c", "c > b", "x > y")

    assert plan.snapshot.walked == ("a", "b")
    assert [edge.source_node_id for edge in plan.incoming["b"]] == ["a"]


def test_attached_nodes_come_along_but_are_not_walked() -> None:
    """A model and a tool serve the agent; neither is a step."""
    plan = plan_of("t > ag", "m llm> ag", "calc tool> ag")

    assert plan.snapshot.walked == ("ag",)
    assert plan.model_of("ag") == plan.nodes["m"]
    assert plan.attached("ag", "tool", "memory") == (plan.nodes["calc"],)


def test_a_dual_type_is_a_step_exactly_when_a_flow_edge_reaches_it() -> None:
    """The same calculator may be a tool of one node and a step after another."""
    plan = plan_of("t > ag", "m llm> ag", "calc tool> ag", "ag > calc")

    assert plan.snapshot.walked == ("ag", "calc")
    assert plan.attached("ag", "tool") == (plan.nodes["calc"],)


def test_the_model_edge_with_the_lowest_id_wins() -> None:
    """Whatever the priorities say."""
    first, second, flow = edges_of("m1 llm> ag", "m2 llm> ag", "t > ag")
    edges = [replace(first, priority=9), second, flow]

    plan = Plan(build_snapshot(nodes_of(edges), edges, "t"))

    assert plan.model_of("ag") == plan.nodes["m1"]


def test_a_flow_edge_never_enters_a_trigger() -> None:
    """Other triggers start other executions."""
    plan = plan_of("t > a", "a > t2", "t2 > b")

    assert plan.snapshot.walked == ("a",)
    assert "a" not in plan.outgoing


def test_legacy_mappings_belong_to_the_scope() -> None:
    """A target that only a condition_mapping names is reached, and waits for the switch."""
    edges = edges_of("t > s", "s ?yes> a")
    edges[1] = replace(edges[1], condition_mapping={"no": "b"})

    plan = Plan(build_snapshot(nodes_of(edges, "b"), edges, "t"))

    assert plan.snapshot.walked == ("s", "a", "b")
    assert plan.incoming["b"] == [edges[1]]


class TestWithoutATrigger:
    def test_flagged_nodes_are_the_entries(self) -> None:
        """However many edges enter them."""
        edges = edges_of("a > b", "b > c")
        nodes = [replace(node, is_entry_point=node.node_id == "b") for node in nodes_of(edges)]

        snapshot = build_snapshot(nodes, edges, None)

        assert snapshot.entries == ("b",)
        assert snapshot.walked == ("b", "c")

    def test_else_the_nodes_that_no_flow_edge_enters(self) -> None:
        """Attached nodes are not such nodes."""
        edges = edges_of("a > c", "b > c", "m llm> ag", "calc tool> ag", "c > ag")

        assert build_snapshot(nodes_of(edges), edges, None).entries == ("a", "b")

    def test_else_the_node_with_the_lowest_id(self) -> None:
        """A ring of steps has to begin somewhere."""
        edges = edges_of("b > a", "a > b")

        assert build_snapshot(nodes_of(edges), edges, None).entries == ("b",)


def test_a_node_ends_here_if_only_error_edges_leave_it() -> None:
    """Edges to the end and to an error handler lead nowhere."""
    plan = plan_of("t > a", "a > h", "a > __end__", "h > b")

    assert plan.ends_here("a")
    assert plan.ends_here("b")
    assert not plan.ends_here("h")
