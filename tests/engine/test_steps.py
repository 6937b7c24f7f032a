"""What a step of a run tells, starts and ends."""

import msgspec

from pipelit.engine.changes import Attempt, Ending
from pipelit.engine.outcome import Failure, Outcome, Report, Usage
from tests.engine.runs import Run, plan_of


def run_of(*edges: str, max_parallel: int = 10) -> Run:
    run = Run(plan_of(*edges), max_parallel=max_parallel)
    run.begin()
    return run


def test_a_linear_run_tells_its_story_in_order() -> None:
    """One step per result, with what follows from it."""
    run = run_of("t > a", "a > b")

    run.succeed("a")
    run.succeed("b")

    assert run.told() == [
        "execution_started",
        "a pending",
        "a running",
        "a success",
        "b pending",
        "b running",
        "b success",
        "execution_completed",
    ]


def test_the_first_row_is_the_triggers() -> None:
    """It has the stored payload as output and no event."""
    run = run_of("t > a")

    (row,) = run.logs

    assert (row.node_id, row.status, row.input, row.output) == (
        "t",
        "success",
        None,
        {"text": "hi"},
    )


def test_an_event_names_the_node_as_people_know_it() -> None:
    """Type, display name and label travel with every status."""
    run = run_of("t > ag")

    data = run.events[1].data

    assert data == {
        "execution_id": "e1",
        "node_id": "ag",
        "status": "pending",
        "component_type": "agent",
        "display_name": "Agent",
        "node_label": "ag",
    }


def test_a_run_that_is_not_valid_fails_before_any_node() -> None:
    """No node has a row or an event."""
    run = Run(plan_of("t > a"))

    changes = run.begin(problems=("first", "second"))

    assert run.told() == ["execution_started", "execution_failed"]
    assert changes.ending == Ending(
        status="failed", error_message="first; second", error_code="ValidationError"
    )
    assert [log.node_id for log in run.logs] == ["t"]


def test_a_trigger_that_leads_nowhere_fails_the_run() -> None:
    """There is nothing to execute."""
    run = Run(plan_of("t > __end__", "a > b"))

    ending = run.begin().ending

    assert ending is not None
    assert ending.error_message == "Workflow 'flow' has no executable nodes"
    assert ending.error_code == "ValidationError"


def test_ready_nodes_start_in_edge_order_as_slots_become_free() -> None:
    """The others are only pending; a result that frees a slot starts the next."""
    run = run_of("t > a", "t > b", "t > c", max_parallel=2)

    assert run.told()[1:] == ["a pending", "b pending", "c pending", "a running", "b running"]
    changes = run.succeed("b")

    assert changes.started == ("c",)
    assert [e.data["status"] for e in changes.events] == ["success", "running"]


def test_a_waiting_node_needs_no_slot() -> None:
    """Its place goes to the next at once."""
    run = run_of("t > a", "t > b", max_parallel=1)

    changes = run.wait("a", 60.0)

    assert changes.started == ("b",)
    assert changes.events[0].data["status"] == "waiting"
    assert changes.events[0].data["resume_at"] == "1970-01-01T00:02:40"


def test_a_failed_attempt_says_when_it_is_tried_again() -> None:
    """The retry is an attempt of its own with its own `running`."""
    run = run_of("t > a")

    changes = run.retry("a", delay=2.0)
    data = changes.events[0].data
    assert (data["status"], data["attempt"], data["will_retry"], data["retry_in"]) == (
        "failed",
        0,
        True,
        2.0,
    )
    assert run.start_ready(after=1.9).started == ()

    again = run.start_ready(after=0.1)
    assert again.started == ("a",)
    assert again.events[0].data["attempt"] == 1
    assert run.start_ready().started == ()


def test_a_second_attempt_counts_in_its_row() -> None:
    """`attempt` is there from the second one on."""
    run = run_of("t > a")
    run.retry("a")
    run.start_ready(after=1.0)

    run.succeed("a")

    assert run.logs[1].metadata is None
    assert run.logs[2].metadata == {"attempt": 1}


def test_what_attempts_used_adds_up() -> None:
    """Failed and successful attempts both cost."""
    run = run_of("t > a")
    used = Report(usage=Usage(input_tokens=3, total_tokens=3, llm_calls=1))
    run.retry("a", failure=Failure(code="E", message="m", retryable=True, report=used))
    run.start_ready(after=1.0)

    run.succeed("a", Outcome(ports={}, report=used))

    assert run.state.usage == Usage(input_tokens=6, total_tokens=6, llm_calls=2)
    summary = run.events[-1].data["activity_summary"]
    assert (summary["total_tokens"], summary["llm_calls"], summary["total_steps"]) == (6, 2, 1)


def test_a_drained_run_starts_nothing_more() -> None:
    """What becomes ready stays pending for whoever takes the run up."""
    run = run_of("t > a", "a > b")

    run.narrator.hold()
    changes = run.succeed("a")

    assert changes.started == ()
    assert run.told()[-1] == "b pending"
    assert changes.ending is None


def test_a_spoken_text_is_announced_with_the_result() -> None:
    """Before the node's `success`."""
    run = run_of("t > ag")

    run.succeed("ag", Outcome(ports={"output": "hi"}, spoken="hi"))

    assert [e.type for e in run.events[3:]] == [
        "chat_message",
        "node_status",
        "execution_completed",
    ]
    assert run.events[3].data == {"execution_id": "e1", "node_id": "ag", "text": "hi"}


class TestPrematureEnds:
    GRAPH = ("t > a", "t > b", "t > c", "a > d", "b > e")

    def test_failure_stops_the_rest_and_says_why_for_each(self) -> None:
        """Running: stopped. Behind the failed node: its fault. All others: the execution's."""
        run = run_of(*self.GRAPH, max_parallel=2)

        run.end(Ending(status="failed", failed_node="a", error_message="x"), failed="a")

        assert run.told()[-6:] == [
            "a failed",
            "b failed",
            "c skipped",
            "d skipped",
            "e skipped",
            "execution_failed",
        ]
        rows = {log.node_id: log for log in run.logs}
        assert (rows["a"].error_code, rows["b"].error_code) == ("RuntimeError", "Cancelled")
        assert rows["b"].error == "Execution failed"
        assert rows["c"].metadata == {"skip_reason": "execution failed"}
        assert rows["d"].metadata == {"skip_reason": "Upstream node failed"}
        assert rows["e"].metadata == {"skip_reason": "execution failed"}

    def test_cancel_stops_what_runs_and_skips_the_rest(self) -> None:
        """No failure is anybody's fault, and nothing will be retried."""
        run = run_of(*self.GRAPH, max_parallel=1)

        run.end(Ending(status="cancelled"))

        assert run.told()[-1] == "execution_cancelled"
        failed = next(e.data for e in run.events if e.data.get("status") == "failed")
        assert (failed["node_id"], failed["error"], failed["will_retry"]) == (
            "a",
            "Execution cancelled",
            False,
        )
        skipped = {e.data["reason"] for e in run.events if e.data.get("status") == "skipped"}
        assert skipped == {"execution cancelled"}

    def test_nodes_that_had_their_result_keep_it(self) -> None:
        """Only nodes without one get one."""
        run = run_of(*self.GRAPH)
        run.succeed("a")
        before = len(run.logs)

        run.end(Ending(status="cancelled"))

        assert "a" not in [log.node_id for log in run.logs[before:]]

    def test_what_stopped_attempts_used_still_counts(self) -> None:
        """Costs so far are kept."""
        run = run_of("t > a")
        attempt = Attempt(node_id="a", number=0, duration_ms=1)
        cut = Failure(
            code="Cancelled", message="m", retryable=False, report=Report(usage=Usage(llm_calls=2))
        )

        run.narrator.end(Ending(status="cancelled"), {"a": (attempt, cut)}, now=1.0, elapsed_ms=1)

        assert run.state.usage.llm_calls == 2

    def test_long_errors_are_cut(self) -> None:
        """2000 characters in rows, 500 in events."""
        run = run_of("t > a")
        failure = Failure(code="E", message="x" * 3000, retryable=True)

        changes = run.retry("a", failure=failure)

        assert len(changes.logs[0].error) == 2000
        assert len(changes.events[0].data["error"]) == 500

    def test_a_failed_execution_names_the_node_and_the_code(self) -> None:
        """As far as they are known."""
        run = run_of("t > a")
        ending = Ending(status="failed", error_message="y" * 900, error_code="E", failed_node="a")

        data = run.end(ending, failed="a").events[-1].data

        assert data == {
            "execution_id": "e1",
            "error": "y" * 500,
            "error_code": "E",
            "node_id": "a",
        }


def test_a_record_survives_storage() -> None:
    """What a waiting node will give is stored with all its side effects."""
    run = run_of("t > a", "a > b")
    outcome = Outcome(
        ports={"x": [1, None]}, route="r", state_patch={"k": 1}, output=None, delay_seconds=9.0
    )

    run.wait("a", 9.0, outcome)

    stored = run.mirror.waiting["a"].outcome
    assert stored == outcome
    assert stored.output is None
    assert run.mirror.waiting["a"].outcome.output is not msgspec.UNSET


def test_a_run_whose_output_cannot_be_made_fails_of_it() -> None:
    """Instead of being taken up again and again."""
    run = Run(plan_of("t > a"))
    run.begin()
    run.state.messages = [None]

    ending = run.succeed("a").ending

    assert ending is not None
    assert (ending.status, ending.error_code) == ("failed", "FinalizationError")
    assert ending.error_message.startswith("Finalization error: ")
