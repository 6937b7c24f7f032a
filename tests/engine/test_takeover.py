"""A retry takes over what is done, and ends as if nothing had ever failed. engine.md §10.8."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine.graph import Plan
from pipelit.engine.outcome import Outcome
from pipelit.engine.records import Record, activation, parse_record, record_kind
from pipelit.engine.routing import is_handled
from pipelit.engine.takeover import Takeover, take_over
from tests.engine.examples import many
from tests.engine.runs import Run, plan_of
from tests.engine.test_journal_properties import Case, Expected, cases, contents, play, require


class Journal(Run):
    """A run that keeps its records as they are stored."""

    def __init__(self, plan: Plan, **more: Any) -> None:
        super().__init__(plan, **more)
        self.records: list[Record] = []

    def _note(self, changes: Any) -> Any:
        self.records += [parse_record(msgspec.to_builtins(record)) for record in changes.records]
        return super()._note(changes)


def retry_of(run: Journal, plan: Plan | None = None, from_node: str | None = None) -> Takeover:
    old = run.state.plan
    return take_over("e0", run.records, old=old, plan=plan or old, from_node=from_node)


def begun(takeover: Takeover, plan: Plan) -> Journal:
    run = Journal(plan)
    run.begin(takeover=takeover)
    return run


def taken(takeover: Takeover) -> list[str]:
    return [getattr(record, "node_id", "") for record in takeover.records]


def failed_at_c() -> Journal:
    run = Journal(plan_of("t > a", "a > b", "a > c", "b > d", "c > d"))
    run.begin()
    run.succeed("a", Outcome(ports={"output": "kept"}))
    run.succeed("b")
    run.running.remove("c")
    return run


class TestOneRun:
    def test_finished_nodes_are_told_first(self) -> None:
        """Without usage, and only the rest runs."""
        run = begun(retry_of(failed_at_c()), plan_of("t > a", "a > b", "a > c", "b > d", "c > d"))

        assert run.told() == [
            "execution_started",
            "a success",
            "b success",
            "c pending",
            "c running",
        ]
        assert run.events[1].data["taken_over"] is True
        assert run.events[1].data["duration_ms"] == 0
        assert run.events[1].data["output"] == {"output": "kept"}
        assert [(log.node_id, log.metadata) for log in run.logs[1:]] == [
            ("a", {"taken_over_from": "e0"}),
            ("b", {"taken_over_from": "e0"}),
        ]
        assert run.state.usage.llm_calls == 0
        assert contents(run.state) == contents(run.mirror)

    def test_a_named_node_runs_again_with_all_that_follows(self) -> None:
        """The trigger means everything."""
        run = failed_at_c()

        assert taken(retry_of(run, from_node="b")) == ["a"]
        assert taken(retry_of(run, from_node="a")) == []
        assert taken(retry_of(run, from_node="t")) == []
        assert taken(retry_of(run, from_node="d")) == ["a", "b"]

    def test_a_changed_graph_keeps_what_still_follows(self) -> None:
        """Not what is new, of another type, or behind such a node."""
        run = failed_at_c()

        behind_new = plan_of("t > a", "a > n", "n > b", "a > c")
        other_type = plan_of("t > a", "a > b", "b > c")
        nodes = tuple(
            msgspec.structs.replace(node, component_type="wait") if node.node_id == "a" else node
            for node in other_type.snapshot.nodes
        )
        changed = Plan(msgspec.structs.replace(other_type.snapshot, nodes=nodes))

        assert taken(retry_of(run, behind_new)) == ["a"]
        assert taken(retry_of(run, other_type)) == ["a", "b"]
        assert taken(retry_of(run, changed)) == []

    def test_a_handled_failure_is_a_result(self) -> None:
        """Unless nobody would handle it any more."""
        run = Journal(plan_of("t > a", "a > h", "h > b"))
        run.begin()
        run.handle("a")

        assert taken(retry_of(run)) == ["a"]
        assert taken(retry_of(run, plan_of("t > a", "a > b"))) == []
        again = begun(retry_of(run), run.state.plan)
        assert again.told()[1:] == ["a failed", "h pending", "h running"]
        data = again.events[1].data
        assert (data["error"], data["error_code"]) == ("no", "RuntimeError")
        assert (data["will_retry"], data["taken_over"]) == (False, True)

    def test_answers_that_let_a_node_run_are_taken_over(self) -> None:
        """Open questions are asked again, and so is what ended the run."""
        plan = plan_of("t > a", "t > b", "a > c", before={"a", "b"}, after={"a"})
        run = Journal(plan)
        run.begin()
        for node in ("a", "b"):
            run.ask(node, "before")
        run.answer("00000001")
        run.answer("00000002")
        run.succeed("a")
        run.ask("a", "after")

        again = begun(retry_of(run), plan)

        assert again.told()[1:] == ["a success", "b pending", "b running"]
        assert again.state.unasked == (("a", "0", "after"),)
        assert again.state.answers["b"] == "go"

    def test_a_rejection_that_ended_the_run_is_asked_again(self) -> None:
        """A rejected action never runs unguarded."""
        plan = plan_of("t > q", "q > b")
        run = Journal(plan)
        run.begin()
        run.ask("q", "before")
        run.answer("00000001", "no")
        run.succeed("q", Outcome(ports={"confirmed": False, "user_response": "no"}))

        again = begun(retry_of(run), plan)

        assert again.told() == ["execution_started", "q pending"]
        assert again.state.unasked == (("q", "0", "before"),)


def test_a_broken_iteration_is_taken_over_as_it_was() -> None:
    """What had begun beside the failed node has its result; the next iteration has its own."""
    edges = ("t > l", "l loop_body> a", "l loop_body> b", "b > c", "l > z")
    run = Journal(plan_of(*edges, continuing={"l"}))
    run.begin()
    run.loop("l", 1, 2)
    run.handle("a")
    run.succeed("b", output="old")

    again = begun(retry_of(run), run.state.plan)

    rows = [(log.node_id, log.status, log.metadata) for log in again.logs[1:]]
    taken_over = {"taken_over_from": "e0", "iteration": "0"}
    assert rows == [
        ("a", "failed", taken_over),
        ("c", "skipped", {"skip_reason": "Upstream node failed", "iteration": "0"}),
        ("b", "success", taken_over),
    ]
    assert again.told()[-7:] == [
        *("l pending", "a pending", "b pending"),
        *("l running", "l running", "a running", "b running"),
    ]
    assert contents(again.state) == contents(again.mirror)


def broken_off(case: Case, plan: Plan, takeover: Takeover | None = None) -> Journal:
    """Play a case to its end, keeping what was stored."""
    found: list[Journal] = []

    def make(plan: Plan, **more: Any) -> Journal:
        found.append(Journal(plan, **more))
        return found[0]

    play(case, plan, case.seeds[0], make, takeover=takeover)
    return found[0]


@many(300)
@given(cases(), st.booleans())
def test_a_retry_of_any_run_ends_as_if_nothing_had_failed(case: Case, continued: bool) -> None:
    """Whatever was done when it broke off; what is taken over runs no second time."""
    plan = case.plan()
    mended = msgspec.structs.replace(
        case,
        fails={
            node: 4 if times == 4 and node in plan.nodes and is_handled(plan, node) else 0
            for node, times in case.fails.items()
        },
    )
    first = broken_off(case, plan)
    takeover = retry_of(first)
    done = {activation(r) for r in takeover.records if record_kind(r) == "result"}
    if continued:  # of a retry that broke off itself
        second = broken_off(case, plan, takeover)
        takeover = retry_of(second)
        assert done <= {activation(r) for r in takeover.records if record_kind(r) == "result"}

    again = play(mended, plan, case.seeds[1], takeover=takeover)

    assert again.ending is not None
    assert again.ending.status == "completed"
    require(again, Expected(mended, plan))
    ran = {
        (e.data["node_id"], e.data.get("iteration", "0"))
        for e in again.events
        if e.data.get("status") == "running"
    }
    assert not ran & done
