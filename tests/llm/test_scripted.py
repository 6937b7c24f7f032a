"""The scripted model that ships with the product."""

from functools import partial

import httpx2
import pytest
import trio

from pipelit.engine.messages import ToolCall
from pipelit.llm.scripted import DEMO_MODEL, Ask, Call, Hang, Say, demo_script, serve_scripted
from pipelit.llm.types import ToolSpec
from tests.llm.asking import Asker, message, request, spec

CALCULATOR = ToolSpec("calculator", "Evaluate.", {"type": "object"})


@pytest.fixture
async def url(nursery: trio.Nursery) -> str:
    return await nursery.start(partial(serve_scripted, demo_script))


async def test_it_does_a_sum_with_the_calculator(http: httpx2.AsyncClient, url: str) -> None:
    """First a tool call, then a text in pieces that says who speaks."""
    asker = Asker(http, spec(url))
    question = message("user", "What is 12*17?")

    first = await asker.ask(request(question, tools=(CALCULATOR,)))
    assert first.calls == (ToolCall("call_1", "calculator", {"expression": "12*17"}),)

    done = message("assistant", "", tool_calls=first.calls)
    result = message("tool", "204", tool_call_id="call_1")
    second = await asker.ask(request(question, done, result, tools=(CALCULATOR,)))

    assert second.text == "12*17 is 204, says this scripted model."
    assert asker.texts == ["12*17 ", "is ", "204, ", "says ", "this ", "scripted ", "model."]
    assert second.usage is not None


async def test_it_lists_its_model_and_answers_in_one_body_too(
    http: httpx2.AsyncClient, url: str
) -> None:
    """The routes of a real provider, and nothing else."""
    listed = (await http.get(f"{url}/models")).json()
    question = {"model": DEMO_MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    answer = (await http.post(f"{url}/chat/completions", json=question)).json()
    tool = {"type": "function", "function": {"name": "calculator"}}
    sum_ = {"model": "x", "messages": [{"role": "user", "content": "2 + 2"}], "tools": [tool]}
    call = (await http.post(f"{url}/chat/completions", json=sum_)).json()

    assert [model["id"] for model in listed["data"]] == [DEMO_MODEL]
    assert "scripted model" in answer["choices"][0]["message"]["content"]
    assert call["choices"][0]["finish_reason"] == "tool_calls"
    assert (await http.post(f"{url}/chat/completions", content=b"{}")).status_code == 400
    assert (await http.get(f"{url}/other")).status_code == 404


async def test_it_hangs_when_told_to(http: httpx2.AsyncClient, url: str) -> None:
    """A call that is cancelled leaves the server in order."""
    asker = Asker(http, spec(url))
    with trio.move_on_after(0.1) as scope:
        await asker.ask(request(message("user", "Please hang.")))

    assert scope.cancelled_caught
    assert (await asker.ask(request(message("user", "Hello")))).text


@pytest.mark.parametrize(
    ("text", "tools", "move"),
    [
        ("What is 12*17?", ("calculator",), Call("calculator", {"expression": "12*17"})),
        ("(1 + 2) * 3 please", ("calculator",), Call("calculator", {"expression": "(1 + 2) * 3"})),
        ("And 3*3?", ("calculator",), Call("calculator", {"expression": "3*3"})),
        ("Now HANG", ("calculator",), Hang()),
    ],
)
def test_the_demo_script_finds_sums(text: str, tools: tuple[str, ...], move: object) -> None:
    """The expression is what stands in the last message of the user."""
    assert demo_script(Ask("demo-1", [{"role": "user", "content": text}], tools)) == move


@pytest.mark.parametrize("text", ["Hello", "I am 5", "What is 1+1?", "change"])
def test_without_a_sum_or_a_calculator_it_says_what_it_is(text: str) -> None:
    """It never pretends to be a real model."""
    move = demo_script(Ask("demo-1", [{"role": "user", "content": text}]))

    assert isinstance(move, Say)
    assert "scripted model" in "".join(move.pieces)
