"""Which edges a finished node takes; joins, skips and routes."""

from msgspec.structs import replace

from pipelit.engine.graph import Plan, build_snapshot
from pipelit.engine.outcome import Outcome
from tests.engine.runs import Run, edges_of, nodes_of, plan_of


def run_of(*edges: str) -> Run:
    run = Run(plan_of(*edges))
    run.begin()
    return run


def test_a_diamond_runs_its_join_once_after_both_branches() -> None:
    """The join waits for the slower branch."""
    run = run_of("t > a", "a > b", "a > c", "b > d", "c > d")
    run.succeed("a")

    run.succeed("c")
    assert run.running == ["b"]

    run.succeed("b")
    assert run.running == ["d"]


def test_a_join_behind_a_switch_runs_when_the_other_branch_is_dead() -> None:
    """A branch that was not chosen resolves its edges."""
    run = run_of("t > s", "s ?yes> a", "s ?no> b", "a > j", "b > j")

    run.route("s", "yes")
    run.succeed("a")

    assert run.running == ["j"]
    assert run.endings() == {"s": "success", "b": "skipped", "a": "success"}


def test_a_node_all_of_whose_edges_are_dead_is_skipped_with_everything_behind_it() -> None:
    """At once, recursively, in edge order; each with a row and an event that say why."""
    run = run_of("t > s", "s ?yes> a", "s ?no> b", "b > c", "b > d", "c > e", "d > e")

    changes = run.route("s", "yes")

    skipped = [e.data for e in changes.events if e.data.get("status") == "skipped"]
    assert [data["node_id"] for data in skipped] == ["b", "c", "d", "e"]
    assert {data["reason"] for data in skipped} == {"Route did not match"}
    rows = [log for log in changes.logs if log.status == "skipped"]
    assert [row.node_id for row in rows] == ["b", "c", "d", "e"]
    assert rows[0].metadata == {"skip_reason": "Route did not match"}


def test_all_edges_of_the_route_are_taken() -> None:
    """Two edges with one value start two branches."""
    run = run_of("t > s", "s ?yes> a", "s ?yes> b", "s ?no> c")

    run.route("s", "yes")

    assert run.running == ["a", "b"]


def test_an_unknown_route_takes_the_default_edges() -> None:
    """`default` is for the routes that nobody names."""
    run = run_of("t > s", "s ?yes> a", "s ?default> b")

    run.route("s", "perhaps")

    assert run.running == ["b"]


def test_an_unknown_route_without_default_takes_nothing_and_the_run_completes() -> None:
    """Nothing is left to run; that is no error."""
    run = run_of("t > s", "s ?yes> a")

    run.route("s", "perhaps")

    assert run.ending is not None
    assert run.ending.status == "completed"
    assert run.endings()["a"] == "skipped"


def test_a_legacy_mapping_is_asked_last() -> None:
    """Only when neither the value nor `default` matches."""
    edges = edges_of("t > s", "s ?yes> a")
    edges[1] = replace(edges[1], condition_mapping={"no": "b", "yes": "b"})
    plan = Plan(build_snapshot(nodes_of(edges, "b"), edges, "t"))
    mapped, named = Run(plan), Run(plan)
    mapped.begin()
    named.begin()

    mapped.route("s", "no")
    named.route("s", "yes")

    assert mapped.running == ["b"]
    assert named.running == ["a"]


def test_direct_edges_of_a_switch_with_conditional_ones_are_ignored() -> None:
    """What is not conditional is dead."""
    run = run_of("t > s", "s ?yes> a", "s > b")

    run.route("s", "yes")

    assert run.endings()["b"] == "skipped"


def test_a_reply_ends_its_branch() -> None:
    """Nothing behind a reply runs; another branch is not affected."""
    run = run_of("t > r", "r > a", "t > b")

    run.succeed("r", Outcome(ports={"output": "hi"}, output="hi"))

    assert run.endings() == {"r": "success", "a": "skipped"}
    assert run.running == ["b"]


def test_an_edge_to_the_end_has_no_successor() -> None:
    """It is neither a node nor an obstacle."""
    run = run_of("t > a", "a > __end__")

    run.succeed("a")

    assert run.ending is not None
    assert run.ending.status == "completed"


class TestErrorEdges:
    def test_success_leaves_the_handler_aside(self) -> None:
        """Its edge is dead."""
        run = run_of("t > a", "a > h", "a > b")

        run.succeed("a")

        assert run.endings() == {"a": "success", "h": "skipped"}
        assert run.running == ["b"]

    def test_failure_takes_only_the_edge_to_the_handler(self) -> None:
        """The rest is skipped because its source failed, and the run goes on."""
        run = run_of("t > a", "a > h", "a > b", "b > c", "h > c")

        changes = run.handle("a")

        assert run.running == ["h"]
        assert run.endings() == {"a": "failed", "b": "skipped"}
        (skip,) = [log for log in changes.logs if log.status == "skipped"]
        assert skip.metadata == {"skip_reason": "Upstream node failed"}

        run.succeed("h")
        assert run.running == ["c"]

    def test_several_nodes_may_share_a_handler(self) -> None:
        """It runs once, after both are decided."""
        run = run_of("t > a", "t > b", "a > h", "b > h")

        run.handle("a")
        assert run.running == ["b"]

        run.succeed("b")
        assert run.running == ["h"]


class TestRoutes:
    def test_a_route_is_inherited_until_another_is_emitted(self) -> None:
        """Nodes downstream see the route of the switch before them."""
        run = run_of("t > s1", "s1 ?yes> a", "a > s2", "s2 ?no> b")

        assert run.state.route_of("s1") == ""
        run.route("s1", "yes")
        run.succeed("a")
        assert run.state.route_of("s2") == "yes"
        run.route("s2", "no")
        assert run.state.route_of("b") == "no"

    def test_parallel_branches_never_see_each_others_route(self) -> None:
        """Each inherits from its own predecessors only."""
        run = run_of("t > s1", "t > s2", "s1 ?x> a", "s2 ?y> b")

        run.route("s1", "x")
        run.route("s2", "y")

        assert (run.state.route_of("a"), run.state.route_of("b")) == ("x", "y")

    def test_a_join_sees_the_route_of_what_was_committed_last(self) -> None:
        """Whatever the order of the edges."""
        run = run_of("t > s1", "t > s2", "s1 ?x> j", "s2 ?y> j")

        run.route("s2", "y")
        run.route("s1", "x")

        assert run.state.route_of("j") == "x"
        assert run.state.predecessors("j") == ("s1", "s2")


def test_a_loop_does_not_wait_for_its_own_body() -> None:
    """The edge that returns to a loop joins nothing: it starts when what is before it has ended."""
    run = run_of("t > a", "a > loop", "loop loop_body> b", "b loop_return> loop", "loop > c")

    run.succeed("a")

    assert run.running == ["loop"]
