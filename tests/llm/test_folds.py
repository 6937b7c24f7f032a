"""What a stream adds up to does not depend on how the provider cut it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine.messages import MessageUsage, ToolCall
from pipelit.llm.answer import ServerEvent
from pipelit.llm.anthropic_ import AnthropicDialect
from pipelit.llm.openai_ import OpenAIDialect
from tests.llm.asking import request

ARGUMENTS = {"expression": "12*17", "note": 'ä "quoted"'}
TEXT = "12*17 is 204."


def pieces(text: str) -> st.SearchStrategy[list[str]]:
    """Cut *text* anywhere, empty pieces included."""
    cuts = st.lists(st.integers(0, len(text)), max_size=6).map(sorted)
    return cuts.map(lambda at: [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)])


@given(pieces(TEXT), pieces(json.dumps(ARGUMENTS)), st.booleans())
def test_openai(texts: list[str], arguments: list[str], id_is_repeated: bool) -> None:
    """Text and arguments in any pieces, the id of a call once or with each piece."""
    fold = OpenAIDialect().fold(request())
    heard = [_add(fold, {"content": text}) for text in texts]
    for count, piece in enumerate(arguments):
        call: dict[str, Any] = {"index": 0, "function": {"arguments": piece}}
        if count == 0:
            call["function"]["name"] = "calculator"
        if count == 0 or id_is_repeated:
            call["id"] = "call_1"
        _add(fold, {"tool_calls": [call]})
    fold.add(ServerEvent("", "[DONE]"))

    response = fold.response()

    assert fold.is_complete
    assert "".join(heard) == response.text == TEXT
    assert response.calls == (ToolCall("call_1", "calculator", ARGUMENTS),)


@given(pieces(TEXT), pieces(json.dumps(ARGUMENTS)))
def test_anthropic(texts: list[str], inputs: list[str]) -> None:
    """The same for blocks."""
    fold = AnthropicDialect().fold(request())
    block = {"type": "tool_use", "id": "call_1", "name": "calculator", "input": {}}
    events: list[dict[str, Any]] = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"text": text}} for text in texts),
        {"type": "content_block_start", "index": 1, "content_block": block},
        *(
            {"type": "content_block_delta", "index": 1, "delta": {"partial_json": piece}}
            for piece in inputs
        ),
        {"type": "message_stop"},
    ]

    heard = [fold.add(ServerEvent(event["type"], json.dumps(event))) for event in events]
    response = fold.response()

    assert fold.is_complete
    assert "".join(heard) == response.text == TEXT
    assert response.calls == (ToolCall("call_1", "calculator", ARGUMENTS),)


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    """Some providers number every call 0, or not at all."""
    for index in ({"index": 0}, {}):
        fold = OpenAIDialect().fold(request())
        for name in ("a", "b"):
            call = {**index, "id": f"call_{name}", "function": {"name": name, "arguments": "{}"}}
            _add(fold, {"tool_calls": [call]})

        assert fold.response().calls == (ToolCall("call_a", "a", {}), ToolCall("call_b", "b", {}))


def _add(fold: Any, delta: dict[str, Any]) -> str:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    text: str = fold.add(ServerEvent("", json.dumps(chunk)))
    return text


def test_each_call_of_a_body_is_a_call_of_its_own() -> None:
    """Even with the id of another: the agent tells them apart."""
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    fold = OpenAIDialect().fold(request())

    fold.add_body(json.dumps({"choices": [{"message": {"tool_calls": [call, call]}}]}).encode())

    assert [read.id for read in fold.response().calls] == ["c", "c"]


@pytest.mark.parametrize("claimed", [-5, 2**80])
def test_usage_stays_within_bounds(claimed: int) -> None:
    """Whatever a provider claims."""
    bound = max(0, min(claimed, 2**53))
    used = {"prompt_tokens": claimed, "completion_tokens": 1}
    spoken = {"input_tokens": claimed, "output_tokens": 1}
    openai, anthropic = OpenAIDialect().fold(request()), AnthropicDialect().fold(request())

    openai.add_body(json.dumps({"choices": [{"message": {}}], "usage": used}).encode())
    anthropic.add_body(json.dumps({"content": [], "usage": spoken}).encode())

    assert openai.response().usage == MessageUsage(bound, 1, bound + 1)
    assert anthropic.response().usage == MessageUsage(bound, 1, bound + 1)
