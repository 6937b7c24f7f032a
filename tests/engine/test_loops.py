"""Loops: one run of the body per item, and what comes of it. Contract: engine.md §13."""

from typing import Any

import pytest

from pipelit.engine.changes import Ending
from pipelit.engine.endings import refuse_start
from pipelit.engine.limits import SizeLimits
from pipelit.engine.outcome import Outcome, Report, json_size
from pipelit.engine.output import state_view
from pipelit.engine.steps import Narrator
from pipelit.engine.validate import validate_workflow
from tests.engine.runs import Run, edges_of, nodes_of, plan_of

SIMPLE = ("t > l", "l loop_body> a", "a loop_return> l", "l > z")
NESTED = (
    *("t > l1", "l1 loop_body> a", "a > l2", "l2 loop_body> b", "b loop_return> l2"),
    *("l2 loop_return> l1", "l1 > z"),
)


def run_of(*edges: str, **more: Any) -> Run:
    run = Run(plan_of(*edges, **more))
    run.begin()
    return run


def seen(run: Run, node: str) -> dict[str, Any]:
    return state_view(run.state, node, execution={}, user_context={})


def ports(run: Run, node: str) -> dict[str, Any]:
    return run.state.node_outputs[node]


class TestIterations:
    def test_the_body_runs_once_per_item_in_order(self) -> None:
        """The loop is running from start to end, and says where it is."""
        run = run_of(*SIMPLE)

        run.loop("l", "x", "y")
        for _ in range(2):
            run.succeed("a")

        assert run.told()[1:-1] == [
            *("l pending", "l running"),
            *("l running", "a pending", "a running", "a success"),
            *("l running", "a pending", "a running", "a success"),
            *("l success", "z pending"),
        ]
        places = [
            e.data["loop"] for e in run.events if e.data.get("node_id") == "l" and "loop" in e.data
        ]
        assert places == [{"index": 0, "total": 2}, {"index": 1, "total": 2}]

    def test_events_and_rows_of_the_body_say_the_iteration(self) -> None:
        """Those of the loop itself do not."""
        run = run_of(*SIMPLE)

        run.loop("l", "x", "y")
        run.succeed("a")
        run.succeed("a")

        told = [e.data for e in run.events if e.data.get("node_id") == "a"]
        assert [data["iteration"] for data in told] == ["0"] * 3 + ["1"] * 3
        assert told[-1]["loop"] == {"index": 1, "total": 2}
        rows = [(log.node_id, log.metadata) for log in run.logs[1:]]
        assert rows == [("a", {"iteration": "0"}), ("a", {"iteration": "1"}), ("l", None)]

    def test_the_results_are_those_of_the_return_nodes(self) -> None:
        """With the primary values, if there is just one such node; an agent's talk is left out."""
        run = run_of("t > l", "l loop_body> ag", "ag loop_return> l")

        run.loop("l", "x", "y")
        run.succeed("ag", output="X", messages=[])
        run.succeed("ag", output="Y", messages=[])

        assert ports(run, "l") == {
            "items": ["x", "y"],
            "results": [{"ag": {"output": "X"}}, {"ag": {"output": "Y"}}],
            "count": 2,
            "values": ["X", "Y"],
        }

    def test_without_a_return_edge_the_ends_of_the_body_are_the_result(self) -> None:
        """A node that was skipped gives null."""
        run = run_of("t > l", "l loop_body> s", "s ?yes> a", "s ?no> b")

        run.loop("l", 1)
        run.route("s", "no")
        run.succeed("b", output=2)

        assert ports(run, "l")["results"] == [{"a": None, "b": {"output": 2}}]
        assert "values" not in ports(run, "l")

    def test_nothing_is_left_of_the_last_iteration(self) -> None:
        """Outputs, results, routes and attempts begin anew; what is outside the body stays."""
        run = run_of("t > x", "x > l", "l loop_body> a", "a > b", "b loop_return> l")
        run.succeed("x")
        run.loop("l", 1, 2)
        run.retry("a")
        run.start_ready(after=1.0)
        run.succeed("a", Outcome(ports={"output": 1}, route="here"))
        assert seen(run, "b")["route"] == "here"
        run.succeed("b")

        view = seen(run, "a")
        assert set(view["node_outputs"]) == {"t", "x"}
        assert set(view["node_results"]) == {"x"}
        assert view["route"] == ""
        assert run.state.attempts == {}

    def test_the_body_sees_the_route_that_led_to_the_loop(self) -> None:
        """And so does what follows it."""
        run = run_of("t > s", "s ?yes> l", "l loop_body> a", "a loop_return> l", "l > z")
        run.route("s", "yes")
        run.loop("l", 1)
        assert seen(run, "a")["route"] == "yes"

        run.succeed("a", Outcome(ports={}, route="other"))

        assert seen(run, "z")["route"] == "yes"

    def test_the_body_sees_its_item(self) -> None:
        """An inner body the outer loop too, and the rest of the run neither."""
        run = run_of(*NESTED)
        run.loop("l1", "x")
        assert seen(run, "a")["loop"] == {"item": "x", "index": 0, "total": 1, "parent": None}
        run.succeed("a")
        run.loop("l2", "p", "q")
        run.succeed("b")

        assert seen(run, "b")["loop"] == {
            "item": "q",
            "index": 1,
            "total": 2,
            "parent": {"item": "x", "index": 0, "total": 1, "parent": None},
        }
        assert seen(run, "z")["loop"] is None

    def test_nested_iterations_are_dotted(self) -> None:
        """The outer index first; the inner loop itself is in an iteration of the outer one."""
        run = run_of(*NESTED)

        run.loop("l1", "x", "y")
        for _ in range(2):
            run.succeed("a")
            run.loop("l2", 1, 2)
            run.succeed("b")
            run.succeed("b")

        rows = [(log.node_id, (log.metadata or {}).get("iteration")) for log in run.logs[1:]]
        assert rows == [
            *(("a", "0"), ("b", "0.0"), ("b", "0.1"), ("l2", "0")),
            *(("a", "1"), ("b", "1.0"), ("b", "1.1"), ("l2", "1")),
            ("l1", None),
        ]

    def test_no_items_skip_the_body(self) -> None:
        """So do no body nodes; the run goes on behind the loop."""
        run = run_of(*NESTED)
        run.loop("l1")

        assert run.told()[-6:] == [
            *("l1 success", "a skipped", "l2 skipped", "b skipped"),
            *("z pending", "z running"),
        ]
        assert ports(run, "l1") == {"items": [], "results": [], "count": 0, "values": []}
        bare = run_of("t > l", "l > z")
        bare.loop("l", 1, 2)
        assert ports(bare, "l")["results"] == []
        assert bare.running == ["z"]

    def test_a_skipped_loop_skips_its_body(self) -> None:
        """Whatever the body looks like."""
        run = run_of("t > s", "s ?yes> l", "l loop_body> a", "a loop_return> l", "s ?no> z")

        run.route("s", "no")

        assert run.endings() == {"s": "success", "l": "skipped", "a": "skipped"}

    def test_a_loop_at_work_takes_no_slot(self) -> None:
        """Else nested loops would wait for themselves."""
        run = Run(plan_of(*NESTED), max_parallel=1)
        run.begin()
        run.loop("l1", "x")
        run.succeed("a")
        run.loop("l2", 1)

        assert run.running == ["b"]

    def test_the_next_iteration_waits_for_an_answer_after_the_last_node(self) -> None:
        """Its successors may not run before, and the next item is one."""
        run = run_of(*SIMPLE, after={"a"})
        run.loop("l", 1, 2)
        run.succeed("a")
        run.ask("a", "after")
        assert run.interrupted

        run.answer("00000001")

        assert run.running == ["a"]
        assert run.state.unasked == ()

    def test_a_question_is_asked_in_each_iteration(self) -> None:
        """An answer counts once."""
        run = run_of(*SIMPLE, before={"a"})
        run.loop("l", 1, 2)
        assert run.state.unasked == (("a", "0", "before"),)
        run.ask("a", "before")
        run.answer("00000001")
        run.succeed("a")

        assert run.state.unasked == (("a", "1", "before"),)
        assert run.running == []


class TestFailures:
    def test_a_failure_ends_the_iteration_and_the_next_item_follows(self) -> None:
        """The rest of the body is skipped, and the result says what went wrong."""
        run = run_of("t > l", "l loop_body> a", "a > b", "b loop_return> l", continuing={"l"})
        run.loop("l", 1, 2)

        run.handle("a")
        assert run.told()[-5:] == ["a failed", "b skipped", "l running", "a pending", "a running"]
        run.succeed("a")
        run.succeed("b")

        failed = {"error": "no", "error_code": "RuntimeError", "failed_node": "a"}
        assert ports(run, "l")["results"] == [{"b": failed}, {"b": {"output": "b"}}]
        assert run.state.results["l"].ending == "success"

    def test_what_has_begun_goes_on_to_its_end(self) -> None:
        """The next iteration starts when nothing of the broken one runs any more."""
        edges = ("t > l", "l loop_body> a", "l loop_body> b", "b > c", "c loop_return> l")
        run = run_of(*edges, continuing={"l"})
        run.loop("l", 1, 2)

        run.handle("a")
        assert run.told()[-2:] == ["a failed", "c skipped"]
        run.succeed("b")

        assert run.running == ["a", "b"]
        assert run.state.iteration_of("a") == "1"

    def test_what_waits_for_a_slot_is_skipped(self) -> None:
        """It has not begun."""
        plan = plan_of("t > l", "l loop_body> a", "l loop_body> b", continuing={"l"})
        run = Run(plan, max_parallel=1)
        run.begin()
        run.loop("l", 1)

        run.handle("a")

        assert run.endings() == {"a": "failed", "b": "skipped", "l": "success"}

    def test_an_error_edge_comes_before_the_loop(self) -> None:
        """A handled failure breaks nothing off."""
        run = run_of("t > l", "l loop_body> a", "a > h", "h loop_return> l", continuing={"l"})
        run.loop("l", 1)
        run.handle("a")
        run.succeed("h", output="mended")

        assert ports(run, "l")["results"] == [{"h": {"output": "mended"}}]

    def test_a_loop_that_stops_fails_within_one_that_goes_on(self) -> None:
        """The outer iteration is broken off by the inner loop."""
        run = run_of(*NESTED, continuing={"l1"})
        run.loop("l1", 1)
        run.succeed("a")
        run.loop("l2", 1, 2)

        run.handle("b")

        assert run.told()[-5:] == [
            *("b failed", "l2 failed", "l1 success", "z pending", "z running"),
        ]
        failed = {
            "error": "Node b failed: no",
            "error_code": "RuntimeError",
            "failed_node": "l2",
        }
        assert ports(run, "l1")["results"] == [{"l2": failed}]

    def test_a_handler_of_the_loop_takes_over(self) -> None:
        """A loop that stops at a failure fails itself."""
        run = run_of(*SIMPLE, "l > h")
        run.loop("l", 1, 2)

        run.handle("a")

        assert run.endings() == {"a": "failed", "l": "failed", "z": "skipped"}
        assert run.running == ["h"]
        assert run.state.results["l"].error is not None
        assert run.state.results["l"].error["message"] == "Node a failed: no"

    def test_an_unhandled_failure_ends_the_run(self) -> None:
        """The loop was stopped; what has a result in this iteration keeps it."""
        run = run_of("t > l", "l loop_body> a", "a > b", "b > c", "c loop_return> l", "l > z")
        run.loop("l", 1, 2)
        run.succeed("a")

        run.end(Ending(status="failed", failed_node="b"), failed="b")

        assert run.told()[-5:] == [
            *("b failed", "l failed", "c skipped", "z skipped"),
            "execution_failed",
        ]
        assert run.logs[-2].metadata == {"skip_reason": "Upstream node failed", "iteration": "0"}

    def test_results_that_are_too_large_fail_the_loop(self) -> None:
        """The bodies of it have run; the run ends, unless the failure is handled."""
        run = run_of(*SIMPLE)
        run.narrator = Narrator(
            "e1", 7, "flow", run.state, max_parallel=9, size_limits=SizeLimits(node_output=60)
        )
        run.loop("l", 1)

        changes = run.succeed("a", output="x" * 40)

        assert changes.broken is not None
        assert changes.broken.failure.code == "OutputTooLargeError"
        assert changes.ending is None
        assert changes.started == ()


def test_the_size_of_a_run_is_that_of_what_it_holds() -> None:
    """Outputs of past iterations do not count; items and results so far do."""
    run = run_of(*SIMPLE)
    run.loop("l", 1, 2)
    run.succeed("a", output="x")
    assert run.state.size == len('[1,2]{"a":{"output":"x"}}')

    run.succeed("a", output="y")

    assert run.state.size == sum(json_size(ports(run, node)) for node in ("a", "l"))


def test_the_steps_of_a_run_are_its_nodes() -> None:
    """However often they ran, and even if the last iteration passed them by."""
    run = run_of("t > l", "l loop_body> s", "s ?yes> a", "a loop_return> l")
    run.loop("l", 1, 2)
    run.route("s", "yes")
    run.succeed("a")
    run.route("s", "no")

    assert run.events[-1].data["activity_summary"]["total_steps"] == 3


@pytest.mark.parametrize("depth", [10, 11])
def test_loops_are_nested_ten_deep_at_most(depth: int) -> None:
    """So that the name of an iteration has a bound."""
    edges = ["t > l0", *(f"l{n} loop_body> l{n + 1}" for n in range(depth - 1))]
    flow = edges_of(*edges)

    errors = validate_workflow(nodes_of(flow), flow).errors

    assert errors == (() if depth == 10 else ("Loop 'l10' is nested more than 10 deep",))


def test_a_loop_that_fails_to_find_its_items_fails_like_any_node() -> None:
    """Before its first iteration."""
    run = run_of(*SIMPLE, "l > h")
    run.handle("l")

    assert run.endings() == {"l": "failed", "a": "skipped", "z": "skipped"}


def test_a_report_of_the_loop_is_in_its_row() -> None:
    """Warnings about its items are told at its end."""
    run = run_of(*SIMPLE)
    warning = {"code": "loop_no_source", "message": "none"}

    report = Report(warnings=(warning,))
    run.succeed("l", Outcome(ports={}, loop_items=[], report=report))

    (row,) = [log for log in run.logs if log.node_id == "l"]
    assert row.metadata == {"warnings": [warning]}


def test_an_error_handler_that_only_a_loop_enters_is_skipped() -> None:
    """The loop has not failed: what the handler would report is not there."""
    run = run_of("t > l", "l loop_body> h", "l loop_body> a", "a loop_return> l", "l > z")

    run.loop("l", "x", "y")
    for _ in range(2):
        run.succeed("a")
    run.succeed("z")

    assert run.told().count("h skipped") == 2
    assert run.told()[-1] == "execution_completed"


def test_a_body_of_which_nothing_is_reached_ends_its_iterations() -> None:
    """It is skipped once per item."""
    run = run_of("t > l", "l loop_body> h", "l > z")

    run.loop("l", "x", "y")
    run.succeed("z")

    assert run.told().count("h skipped") == 2
    assert run.told()[-1] == "execution_completed"


def test_a_refused_start_keeps_the_iteration_that_has_begun() -> None:
    """The nodes of the next iteration do not run; that it began is told all the same."""
    run = run_of(*SIMPLE)

    changes = run.loop("l", "x")
    allowed = refuse_start(run.state, changes)

    told = [(e.data["node_id"], e.data["status"]) for e in allowed.events]
    assert told == [("l", "running"), ("a", "pending")]
    assert allowed.started == ()
