"""An agent: what it asks, what it answers, what it remembers, what it costs."""

import pytest

from pipelit.engine.compaction import Summary
from pipelit.engine.messages import MessageUsage, ToolCall
from pipelit.engine.outcome import Usage
from pipelit.llm.types import ContextOverflow, ProviderError
from pipelit.nodes.base import NodeError, config_error
from tests.nodes.agents import SPEC, Port, Script, calls, message, run_agent, says
from tests.nodes.test_agent_tools import ADD, add


class TestInput:
    async def test_it_reads_the_shared_conversation(self) -> None:
        """With its system prompt before it."""
        shared = (message("user", "a"), message("assistant", "b"), message("user", "c"))
        script = Script(says("x"))

        outcome = await run_agent(script, messages=shared, system_prompt="Be brief.")

        assert script.texts() == [
            ("system", "Be brief."),
            ("user", "a"),
            ("assistant", "b"),
            ("user", "c"),
        ]
        assert outcome.report.input == {"system_prompt": "Be brief.", "text": "c"}

    async def test_an_input_template_takes_its_place(self) -> None:
        """One user message with the rendered text."""
        script = Script(says("x"))

        outcome = await run_agent(
            script, input_template="{{ a }}", rendered={"input_template": "rendered"}
        )

        assert script.texts() == [("user", "rendered")]
        assert outcome.report.input == {"input_template": "rendered"}

    async def test_a_template_that_renders_to_nothing_hides_the_conversation_too(self) -> None:
        """Then the rule for an empty input counts."""
        script = Script(says("x"))

        await run_agent(
            script,
            messages=(message("user", "secret"),),
            input_template="{{ a }}",
            rendered={"input_template": ""},
        )

        assert script.texts() == [("user", "(no message)")]

    @pytest.mark.parametrize(
        ("payload", "text"), [({"n": 1}, '{"n":1}'), ({}, "(no message)"), (None, "(no message)")]
    )
    async def test_without_any_user_message_the_payload_speaks(
        self, payload: object, text: str
    ) -> None:
        """Or says that there is none."""
        script = Script(says("x"))

        await run_agent(script, messages=(message("assistant", "earlier"),), payload=payload)

        assert script.texts()[-1] == ("user", text)

    async def test_a_provider_that_ignores_system_prompts_hears_it_twice(self) -> None:
        """The repetition is never stored."""
        script, port = Script(says("x")), Port()

        outcome = await run_agent(
            script,
            port,
            system_prompt="Be brief.",
            model_extra={"system_prompt_fallback": "always"},
            conversation_memory=True,
        )

        head = "[System instructions — follow these for the entire conversation]\n"
        assert script.texts()[:2] == [("system", "Be brief."), ("user", head + "Be brief.")]
        assert script.requests[0].messages[1].id == "system_prompt_fallback"
        stored = [*outcome.ports["messages"], *(m.to_json() for m in outcome.remember)]
        assert all("System instructions" not in str(m["content"]) for m in stored)

    async def test_a_conversation_that_is_too_long_is_trimmed_for_the_call_only(self) -> None:
        """The agent keeps it all."""
        shared = (
            message("user", "x" * 40_000),
            message("assistant", "old"),
            message("user", "new"),
        )
        script = Script(says("answer"))

        outcome = await run_agent(script, messages=shared, context_window=8000)

        assert script.texts() == [("user", "new")]
        assert len(outcome.ports["messages"]) == 4

    async def test_a_window_without_room_is_not_trimmed_but_told(self) -> None:
        """As is a setting that makes no sense."""
        script = Script(says("x"))

        outcome = await run_agent(script, context_window=100, model_extra={})
        odd = await run_agent(Script(says("x")), context_window="big")

        assert script.texts() == [("user", "hi")]
        assert [w["code"] for w in outcome.report.warnings] == ["context_budget"]
        assert [w["code"] for w in odd.report.warnings] == ["context_window_invalid"]


class TestSpeech:
    async def test_every_text_is_announced_when_it_is_complete(self) -> None:
        """Before the calls it goes with; the last one with the result."""
        script, port = Script(calls(ADD, text="Let me see."), says("Two.")), Port()

        outcome = await run_agent(script, port, tools={"add": add})

        assert port.told() == ["chat_message Let me see.", "add running", "add success"]
        assert outcome.spoken == "Two."

    async def test_the_same_text_twice_in_a_row_is_announced_once(self) -> None:
        """Also if the repetition is the answer."""
        again = ToolCall("c2", "add", {"a": 1})
        script, port = Script(calls(ADD, text="Hm."), calls(again, text="Hm."), says("Hm.")), Port()

        outcome = await run_agent(script, port, tools={"add": add})

        assert [t for t in port.told() if t.startswith("chat")] == ["chat_message Hm."]
        assert outcome.spoken is None
        assert outcome.ports["output"] == "Hm."

    async def test_pieces_are_counted_from_zero_in_each_answer(self) -> None:
        """As they arrive."""
        script, port = Script(calls(ADD, text="one two"), says("three")), Port()

        await run_agent(script, port, tools={"add": add})

        assert port.deltas == [("one", 0), ("two", 1), ("three", 0)]

    async def test_an_answer_without_text_is_empty(self) -> None:
        """And adds nothing to the conversation."""
        outcome = await run_agent(Script(says("")))

        assert outcome.ports["output"] == ""
        assert outcome.messages == ()
        assert outcome.spoken is None


class TestLimits:
    async def test_an_agent_that_never_answers_is_stopped(self) -> None:
        """After so many model calls; it is not tried again."""
        endless = [calls(ToolCall(f"c{n}", "add", {"a": 1})) for n in range(5)]
        script, port = Script(*endless), Port()

        with pytest.raises(
            NodeError, match=r"^Agent stopped after 3 iterations without a final answer$"
        ) as caught:
            await run_agent(script, port, tools={"add": add}, max_iterations=3)

        assert (caught.value.code, caught.value.retryable) == ("AgentRecursionError", False)
        assert len(script.requests) == 3
        assert port.reports[-1].usage == Usage(
            input_tokens=30,
            output_tokens=15,
            total_tokens=45,
            cost_micros=3 * 75,
            llm_calls=3,
            tool_invocations=3,
        )

    async def test_the_last_allowed_call_may_answer(self) -> None:
        """The bound counts calls, not tools."""
        outcome = await run_agent(
            Script(calls(ADD), says("done")), tools={"add": add}, max_iterations=2
        )

        assert outcome.ports["output"] == "done"


class TestMemory:
    async def test_it_is_off_unless_asked_for(self) -> None:
        """Nothing is read and nothing kept."""
        script, port = Script(says("x")), Port(remembered=(message("user", "before"),))

        outcome = await run_agent(script, port)

        assert script.texts() == [("user", "hi")]
        assert outcome.remember == ()

    async def test_it_reads_what_was_and_keeps_what_came(self) -> None:
        """The new input and everything the run produced, not what was remembered before."""
        port = Port(remembered=(message("user", "before"), message("assistant", "yes")))
        script = Script(calls(ADD), says("Two."))

        outcome = await run_agent(script, port, tools={"add": add}, conversation_memory=True)

        assert script.texts(0) == [("user", "before"), ("assistant", "yes"), ("user", "hi")]
        assert [(m.role, m.text) for m in outcome.remember] == [
            ("user", "hi"),
            ("assistant", ""),
            ("tool", "2"),
            ("assistant", "Two."),
        ]

    async def test_a_message_that_is_remembered_is_not_repeated(self) -> None:
        """It is known by its id."""
        known = message("user", "known")
        script, port = Script(says("x")), Port(remembered=(known,))

        outcome = await run_agent(
            script, port, messages=(known, message("user", "new")), conversation_memory=True
        )

        assert script.texts() == [("user", "known"), ("user", "new")]
        assert [m.text for m in outcome.remember] == ["new", "x"]


class TestCosts:
    async def test_calls_tokens_and_money_add_up(self) -> None:
        """gpt-4o: 2.50 and 10.00 USD per million."""
        outcome = await run_agent(Script(calls(ADD), says("x")), tools={"add": add})

        assert outcome.report.model == "gpt-4o"
        assert outcome.report.usage == Usage(
            input_tokens=20,
            output_tokens=10,
            total_tokens=30,
            cost_micros=2 * 75,
            llm_calls=2,
            tool_invocations=1,
        )

    async def test_a_provider_that_reports_nothing_is_told_of(self) -> None:
        """The call counts, its tokens do not; one warning is enough."""
        script = Script(
            says("", usage=None),
        )

        outcome = await run_agent(script)

        assert outcome.report.usage == Usage(llm_calls=1)
        assert [w["code"] for w in outcome.report.warnings] == ["usage_missing"]

    async def test_costs_stay_within_bounds(self) -> None:
        """However many tokens a provider claims."""
        claimed = MessageUsage(2**53, 0, 2**53)

        outcome = await run_agent(Script(says("x", claimed)))

        assert outcome.report.usage is not None
        assert outcome.report.usage.cost_micros == 2**53

    async def test_a_model_without_a_price_is_told_of(self) -> None:
        """Its tokens count all the same."""
        outcome = await run_agent(Script(says("x")), model={"model_name": "mystery-1"})

        assert [w["code"] for w in outcome.report.warnings] == ["price_unknown"]
        assert outcome.report.usage is not None
        assert outcome.report.usage.total_tokens == 15
        assert outcome.report.usage.cost_micros == 0

    async def test_a_call_that_fails_counts_without_tokens(self) -> None:
        """The failure goes through, and what is noted knows of the call."""
        error = ProviderError("busy", code="RateLimitError", retryable=True)
        port = Port()

        with pytest.raises(ProviderError):
            await run_agent(Script(error), port)

        assert port.reports[-1].usage == Usage(llm_calls=1)
        assert [w["code"] for w in port.reports[-1].warnings] == ["usage_missing"]


class TestModel:
    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"model": {"model_name": ""}}, "requires both model_name and llm_credential"),
            ({"model": {"llm_credential_id": None}}, "requires both model_name"),
            ({"credential": "missing"}, "Credential ID 1 not found for node 'm'. It may have"),
            ({"credential": "not_llm"}, "Credential ID 1 for node 'm' has no LLM provider"),
        ],
    )
    async def test_an_incomplete_model_is_a_configuration_error(
        self, changes: dict[str, object], text: str
    ) -> None:
        """Which no retry can cure."""
        with pytest.raises(NodeError, match=text) as caught:
            await run_agent(Script(), **changes)  # type: ignore[arg-type]

        assert caught.value.code == config_error("").code
        assert not caught.value.retryable

    async def test_only_what_is_set_is_sent(self) -> None:
        """Sampling parameters of the model node."""
        script = Script(says("x"))

        await run_agent(script, model={"temperature": 0.0, "max_tokens": 5, "top_p": None})

        request = script.requests[0]
        assert (request.temperature, request.max_tokens, request.top_p) == (0.0, 5, None)
        assert request.native_search is False
        assert SPEC.api_key not in repr(SPEC)


async def test_the_prompt_begins_with_what_the_sandbox_offers():
    """Only where the agent has a workspace of its own."""

    async def environment(workflow_id, workspace_id, skills):
        return f"## Environment Capabilities {workflow_id} {workspace_id}"

    with_one, without = Script(says("x")), Script(says("x"))
    await run_agent(with_one, system_prompt="Be.", environment=environment, workspace_id=5)
    await run_agent(without, system_prompt="Be.", environment=environment)

    assert with_one.requests[0].messages[0].text == "## Environment Capabilities 1 5\n\nBe."
    assert without.requests[0].messages[0].text == "Be."


class TestCompaction:
    async def test_older_messages_give_way_to_a_summary(self) -> None:
        """Written by the same model, without tools and unseen; its tokens count."""
        old = [message("user" if n % 2 == 0 else "assistant", "x" * 400 + str(n)) for n in range(6)]
        script, port = Script(says("They said x."), says("done")), Port(remembered=tuple(old))

        outcome = await run_agent(
            script,
            port,
            tools={"add": add},
            conversation_memory=True,
            context_window=1000,
            model={"max_tokens": 100},
            compacting="summarize",
            compacting_trigger=50,
            compacting_keep=2,
        )

        assert script.requests[0].tools == ()
        assert script.texts(1) == [
            ("user", "[Summary of the earlier conversation]\nThey said x."),
            ("assistant", "x" * 400 + "5"),
            ("user", "hi"),
        ]
        assert outcome.report.usage is not None
        assert (outcome.report.usage.llm_calls, port.deltas) == (2, [("done", 0)])
        assert [m.text for m in outcome.remember] == ["hi", "done", "They said x."]

    async def test_later_runs_of_the_thread_go_on_with_it(self) -> None:
        """They read the summary, not what it stands for."""
        last = message("assistant", "b")
        summary = Summary(before=last.id, message=message("user", "They said a."))
        script = Script(says("done"))

        await run_agent(
            script,
            Port(remembered=(message("user", "a"), last, summary.to_stored())),
            conversation_memory=True,
        )

        assert [text for _, text in script.texts()] == [
            "[Summary of the earlier conversation]\nThey said a.",
            "b",
            "hi",
        ]


async def test_a_prompt_that_is_too_long_after_all_is_shortened_once() -> None:
    """What it has become the second time is final."""
    long = ContextOverflow("no", code="BadRequestError", retryable=False, status=400)
    script = Script(long, long)

    with pytest.raises(ContextOverflow):
        await run_agent(script, messages=(message("user", "x" * 400),))

    assert [len(r.messages[-1].text) for r in script.requests] == [400, 192]
