"""What a run shows of its results: final output, promotion, events, limits."""

from typing import Any

import pytest

from pipelit.engine.limits import SizeLimits, oversize
from pipelit.engine.messages import ChatMessage
from pipelit.engine.outcome import Outcome, json_size
from pipelit.engine.output import delivery_text, event_output, reply_text, state_view
from tests.engine.runs import Run, plan_of


def said(text: str, role: Any = "assistant") -> ChatMessage:
    return ChatMessage(id=text, role=role, content=text, timestamp="2026-01-01T00:00:00")


def run_of(*edges: str) -> Run:
    run = Run(plan_of(*edges))
    run.begin()
    return run


def final(run: Run) -> Any:
    assert run.ending is not None
    assert run.ending.status == "completed"
    return run.ending.final_output


class TestFinalOutput:
    def test_first_what_a_reply_has_set(self) -> None:
        """The last committed reply wins, whatever else was said."""
        run = run_of("t > r1", "t > r2", "t > ag")

        run.succeed("r2", Outcome(ports={"output": "two"}, output="two"))
        run.succeed("ag", Outcome(ports={"output": "x"}, messages=(said("x"),)))
        run.succeed("r1", Outcome(ports={"output": "one"}, output={"n": 1}))

        assert final(run) == {"output": {"n": 1}}

    def test_then_the_last_assistant_message_with_text(self) -> None:
        """An agent that is not the end of the graph speaks into the conversation."""
        run = run_of("t > ag", "ag > a")

        run.succeed("ag", Outcome(ports={"output": "x"}, messages=(said("x"), said(""))))
        run.succeed("a")

        assert final(run) == {"message": "x"}

    def test_then_the_outputs_of_all_graph_nodes(self) -> None:
        """Without triggers, `messages` ports and nodes that gave nothing."""
        run = run_of("t > a", "t > b")

        run.succeed("a", Outcome(ports={"output": 1, "messages": []}))
        run.succeed("b", Outcome(ports={}))

        assert final(run) == {"node_outputs": {"a": {"output": 1}}}

    def test_then_the_last_text_of_the_conversation(self) -> None:
        """What the user said, if nobody answered."""
        run = Run(plan_of("t > a"))
        run.begin(said("hello", "user"))

        run.succeed("a", Outcome(ports={}))

        assert final(run) == {"message": "hello"}

    def test_else_nothing(self) -> None:
        """Null."""
        run = run_of("t > a")

        run.succeed("a", Outcome(ports={}))

        assert final(run) is None


class TestPromotion:
    ANSWER = Outcome(ports={"output": "x", "messages": []})

    def test_the_text_of_a_final_agent_becomes_the_output(self) -> None:
        """An edge to an error handler does not make it less final."""
        run = run_of("t > ag", "ag > h")

        run.succeed("ag", self.ANSWER)

        assert final(run) == {"output": "x"}

    def test_not_if_a_reply_is_in_scope(self) -> None:
        """Even one that does not run."""
        run = run_of("t > ag", "t > s", "s ?yes> r")

        run.succeed("ag", self.ANSWER)
        run.route("s", "no")

        assert final(run) == {"node_outputs": {"ag": {"output": "x"}, "s": {"route": "no"}}}

    def test_not_if_the_agent_has_a_successor(self) -> None:
        """Then what comes after it decides."""
        run = run_of("t > ag", "ag > a")

        run.succeed("ag", self.ANSWER)
        run.succeed("a", Outcome(ports={}))

        assert final(run) == {"node_outputs": {"ag": {"output": "x"}}}

    def test_the_first_of_two_final_agents_is_promoted(self) -> None:
        """The output is set by then."""
        run = run_of("t > ag1", "t > ag2")

        run.succeed("ag2", Outcome(ports={"output": "second"}))
        run.succeed("ag1", Outcome(ports={"output": "first"}))

        assert final(run) == {"output": "second"}


class TestEvents:
    def test_long_strings_are_cut(self) -> None:
        """At any depth; the `messages` port is left out."""
        shown = event_output({"a": ["x" * 2049], "b": "y" * 2048, "messages": [1]})

        assert shown == {"a": ["x" * 2048 + "..."], "b": "y" * 2048}

    def test_an_output_that_is_still_too_long_is_left_out(self) -> None:
        """The log row has it all."""
        assert event_output({"a": ["x" * 2000] * 40}) == {"_truncated": True}

    def test_only_text_goes_into_a_transcript(self) -> None:
        """Objects and empty texts do not."""
        assert reply_text({"output": "hi"}) == "hi"
        assert reply_text({"message": "hi"}) == "hi"
        assert reply_text({"output": {"n": 1}}) is None
        assert reply_text({"output": ""}) is None
        assert reply_text({"node_outputs": {}}) is None
        assert reply_text(None) is None


class TestLimits:
    def test_a_nodes_output_may_be_as_large_as_its_limit(self) -> None:
        """One byte more fails the node for good."""
        run = run_of("t > a")
        outcome = Outcome(ports={"output": "x" * 10})
        size = json_size(outcome.ports)

        assert oversize(outcome, run.state, SizeLimits(node_output=size)) is None
        failure = oversize(outcome, run.state, SizeLimits(node_output=size - 1))

        assert failure is not None
        assert failure.code == "OutputTooLargeError"
        assert failure.message == f"Node output too large ({size} bytes, limit {size - 1})"
        assert not failure.retryable

    def test_the_state_counts_outputs_and_conversation(self) -> None:
        """Of the nodes before and of the one that would exceed it."""
        run = run_of("t > a", "a > b")
        first = Outcome(ports={"output": "x" * 10}, messages=(said("hello"),))
        run.succeed("a", first)
        used = json_size(first.ports) + json_size(first.messages[0])
        more = Outcome(ports={"output": 1}, messages=(said("hi"),))
        total = used + json_size(more.ports) + json_size(more.messages[0])

        assert run.state.size == used
        assert oversize(more, run.state, SizeLimits(state=total)) is None
        failure = oversize(more, run.state, SizeLimits(state=total - 1))

        assert failure is not None
        assert failure.message == (f"Execution state too large ({total} bytes, limit {total - 1})")


class TestState:
    def test_a_patch_cannot_touch_what_the_engine_keeps(self) -> None:
        """Reserved keys and those with an underscore are ignored."""
        run = run_of("t > a", "a > b")
        patch = {"mine": 1, "messages": [], "trigger": 0, "_x": 1, "node_results": 0}

        run.succeed("a", Outcome(ports={"output": 1}, state_patch=patch))

        assert run.state.patch == {"mine": 1}

    def test_a_node_sees_results_outputs_and_route(self) -> None:
        """As of now, as plain data."""
        run = run_of("t > s", "s ?yes> b")
        run.route("s", "yes")

        view = state_view(run.state, "b", execution={"execution_id": "e1"}, user_context={"u": 1})

        assert view["route"] == "yes"
        assert view["current_node"] == "b"
        assert view["node_outputs"]["s"] == {"route": "yes"}
        assert view["node_outputs"]["t"] == view["trigger"]
        assert view["node_results"] == {
            "s": {
                "status": "success",
                "data": {"route": "yes"},
                "error": None,
                "metadata": {},
                "started_at": "1970-01-01T00:01:39.995000",
                "completed_at": "1970-01-01T00:01:40",
            }
        }
        assert view["output"] is None

    def test_a_view_does_not_change_afterwards(self) -> None:
        """What other branches give later is not seen by a node that runs already."""
        run = run_of("t > a", "t > b")
        view = state_view(run.state, "b", execution={}, user_context={})

        run.succeed("a", Outcome(ports={"output": 1}, messages=(said("x"),)))

        assert "a" not in view["node_outputs"]
        assert view["messages"] == []

    def test_a_handled_failure_is_a_result(self) -> None:
        """With what the handler needs to know."""
        run = run_of("t > a", "a > h")
        run.handle("a")

        view = state_view(run.state, "h", execution={}, user_context={})

        assert view["node_results"]["a"]["status"] == "failed"
        assert view["node_results"]["a"]["error"] == {
            "code": "RuntimeError",
            "message": "no",
            "recoverable": False,
            "node_id": "a",
            "details": {"component_type": "merge", "attempts": 1, "at": 100.0},
        }


def test_the_conversation_forgets_its_oldest_messages() -> None:
    """The limit counts messages; their bytes are given back."""
    run = Run(plan_of("t > ag", "ag > a"), max_messages=2)
    run.begin()

    run.succeed("ag", Outcome(ports={}, messages=(said("one"), said("two"), said("three"))))

    assert [m.text for m in run.state.messages] == ["two", "three"]
    assert run.state.size == sum(json_size(m) for m in run.state.messages) + len("{}")


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (None, ""),
        ({"message": "Hi."}, "Hi."),
        ({"output": "Hi."}, "Hi."),
        ({"output": ""}, ""),
        ({"output": None}, ""),
        ({"output": {"n": 1, "ä": [True]}}, '{"n":1,"ä":[true]}'),
        ({"output": 5}, "5"),
        (
            {"node_outputs": {"a": {"output": 1}, "b": {"x": "y"}}},
            '**a**: {"output":1}\n\n**b**: {"x":"y"}',
        ),
        ({"node_outputs": {}}, ""),
    ],
)
def test_a_chat_gets_the_final_output_as_text(output: Any, text: str) -> None:
    """Texts as they are, objects as JSON, one paragraph for each node."""
    assert delivery_text(output) == text
