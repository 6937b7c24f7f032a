"""Anthropic's messages over a real socket."""

import httpx2
import pytest
import trio

from pipelit.engine.messages import MessageUsage, ToolCall
from pipelit.llm.anthropic_ import AnthropicDialect
from pipelit.llm.types import InvalidToolCall, ToolSpec
from tests.kit.model_server import ModelServer
from tests.llm.asking import Asker, message, request, spec

CALCULATOR = ToolSpec("calculator", "Evaluate.", {"type": "object", "properties": {}})
STOP = [
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
    {"type": "message_stop"},
]


def asker_of(http: httpx2.AsyncClient, server: ModelServer, **more: object) -> Asker:
    return Asker(http, spec(server.address, provider_type="anthropic", **more))


async def test_a_request_is_written_as_alternating_turns(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """System text goes to `system`, neighbours of one role are one turn, results are blocks."""
    asker = asker_of(http, server)
    calls = (ToolCall("t1", "calculator", {"e": 1}), ToolCall("t2", "calculator", {"e": 2}))
    asked = request(
        message("system", "Be brief."),
        message("user", "One"),
        message("user", [{"type": "text", "text": "Two"}]),
        message("assistant", "", tool_calls=calls),
        message("tool", "204", tool_call_id="t1"),
        message("tool", "Error: no", tool_call_id="t2"),
        message("system", "And kind."),
        message("assistant", "  "),
        tools=(CALCULATOR,),
        temperature=0.5,
        frequency_penalty=0.5,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asker.ask, asked)
        call = await server.next_call()
        await call.stream(STOP, done=False)

    assert call.path == "/v1/messages"
    assert call.headers["x-api-key"] == "sk-demo-0123456789abcdef"
    assert call.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in call.headers
    assert call.body == {
        "model": "demo-1",
        "max_tokens": 4096,
        "temperature": 0.5,
        "system": "Be brief.\n\nAnd kind.",
        "tools": [
            {
                "name": "calculator",
                "description": "Evaluate.",
                "input_schema": CALCULATOR.parameters,
            }
        ],
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "t1", "name": "calculator", "input": {"e": 1}},
                    {"type": "tool_use", "id": "t2", "name": "calculator", "input": {"e": 2}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "204"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "t2",
                        "content": "Error: no",
                        "is_error": True,
                    },
                ],
            },
        ],
        "stream": True,
    }


async def test_a_stream_adds_up(http: httpx2.AsyncClient, server: ModelServer) -> None:
    """Text, calls in block order, and usage with the cache's tokens; thinking stays out."""
    asker = asker_of(http, server)
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 2,
        "output_tokens": 1,
    }
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asker.ask, request())
        await (await server.next_call()).stream(
            [
                {"type": "message_start", "message": {"content": [], "usage": usage}},
                {"type": "ping"},
                _start(0, {"type": "thinking", "thinking": ""}),
                _grow(0, {"type": "thinking_delta", "thinking": "hm"}),
                _start(1, {"type": "text", "text": ""}),
                _grow(1, {"type": "text_delta", "text": "12*17"}),
                _grow(1, {"type": "text_delta", "text": " is"}),
                _start(2, {"type": "tool_use", "id": "t1", "name": "calculator", "input": {}}),
                _grow(2, {"type": "input_json_delta", "partial_json": '{"a"'}),
                _grow(2, {"type": "input_json_delta", "partial_json": ": 1}"}),
                _start(3, {"type": "tool_use", "id": "t2", "name": "clock", "input": {}}),
                _start(4, {"type": "tool_use", "id": "t3", "name": "clock", "input": {}}),
                _grow(4, {"type": "input_json_delta", "partial_json": "[1"}),
                *STOP,
            ],
            done=False,
        )

    response = asker.response
    assert response is not None
    assert asker.texts == ["12*17", " is"]
    assert response.text == "12*17 is"
    assert response.calls == (
        ToolCall("t1", "calculator", {"a": 1}),
        ToolCall("t2", "clock", {}),
        InvalidToolCall("t3", "clock", "[1"),
    )
    assert response.usage == MessageUsage(15, 7, 22)
    assert response.finish_reason == "end_turn"


async def test_an_answer_in_one_body_is_taken_as_it_is(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """Without a stream there are no pieces."""
    asker = asker_of(http, server)
    body = {
        "type": "message",
        "content": [{"type": "text", "text": "Hello."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asker.ask, request())
        await (await server.next_call()).respond(200, body)

    assert asker.texts == []
    assert asker.response is not None
    assert (asker.response.text, asker.response.usage) == ("Hello.", MessageUsage(3, 2, 5))


@pytest.mark.parametrize(
    ("kind", "code", "retryable"),
    [
        ("overloaded_error", "OverloadedError", True),
        ("invalid_request_error", "BadRequestError", False),
        ("something_new", "InternalServerError", True),
    ],
)
async def test_an_error_inside_the_stream_is_named_like_its_status(
    http: httpx2.AsyncClient, server: ModelServer, kind: str, code: str, retryable: bool
) -> None:
    """The kind decides whether it is worth another attempt; the words stay out."""
    asker = asker_of(http, server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asker.try_ask, request())
        error = {"type": "error", "error": {"type": kind, "message": "sk-secret"}}
        await (await server.next_call()).stream([error], done=False)

    assert asker.error is not None
    assert str(asker.error) == "provider reported an error"
    assert (asker.error.code, asker.error.retryable) == (code, retryable)


async def test_a_refusal_says_the_status(http: httpx2.AsyncClient, server: ModelServer) -> None:
    """The same words for every provider."""
    asker = asker_of(http, server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asker.try_ask, request())
        await (await server.next_call()).respond(529, {"error": {"message": "sk-secret"}})

    assert asker.error is not None
    assert str(asker.error) == "provider returned HTTP 529"
    assert (asker.error.code, asker.error.retryable) == ("OverloadedError", True)


@pytest.mark.parametrize("data", [b"data: nonsense\n\n", b'{"type": "other"}', b"data: 1\n\n"])
async def test_an_answer_that_is_none_fails_the_call(
    http: httpx2.AsyncClient, server: ModelServer, data: bytes
) -> None:
    """Garbage is a failure worth another attempt."""
    asker = asker_of(http, server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asker.try_ask, request())
        call = await server.next_call()
        await call.begin()
        await call.send(data)
        await call.end()

    assert asker.error is not None
    assert asker.error.code == "APIResponseValidationError"


async def test_without_a_key_there_is_no_authentication(
    http: httpx2.AsyncClient, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own key is not sent instead."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-the-server")
    asker = asker_of(http, server, api_key="")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asker.ask, request())
        call = await server.next_call()
        await call.stream(STOP, done=False)

    assert "x-api-key" not in call.headers
    assert "authorization" not in call.headers


async def test_cancelling_closes_the_connection_at_once(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """The provider sees the end of the connection in the middle of its answer."""
    asker = asker_of(http, server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asker.ask, request())
        call = await server.next_call()
        await call.begin()
        await call.send_events([{"type": "ping"}])

        nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await call.wait_gone()

    assert asker.response is None


@pytest.mark.parametrize(
    ("base_url", "has_search"),
    [
        ("", True),
        ("https://api.anthropic.com", True),
        ("https://proxy.example/anthropic.com", False),
    ],
)
def test_native_search_is_offered_at_anthropic_only(base_url: str, has_search: bool) -> None:
    """A look-alike would not know the server-side tool."""
    body = AnthropicDialect().body(
        request(native_search=True), spec(base_url, provider_type="anthropic"), stream=True
    )

    expected = [{"type": "web_search_20250305", "name": "web_search"}] if has_search else None
    assert body.get("tools") == expected


def _start(index: int, block: dict[str, object]) -> dict[str, object]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _grow(index: int, delta: dict[str, object]) -> dict[str, object]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


async def test_an_answer_that_pauses_is_gone_on_with(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """What came so far is sent back as it came; texts and usage add up."""
    asker = Asker(http, spec(server.url, provider_type="anthropic"))
    search = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asker.ask, request(message("user", "News?")))
        call = await server.next_call()
        await call.stream(
            [
                {"type": "message_start", "message": {"usage": {"input_tokens": 3}}},
                block(0, {"type": "text", "text": ""}),
                piece(0, {"type": "text_delta", "text": "Let me "}),
                piece(0, {"type": "text_delta", "text": "look. "}),
                block(1, search),
                piece(1, {"type": "input_json_delta", "partial_json": '{"query":'}),
                piece(1, {"type": "input_json_delta", "partial_json": '"x"}'}),
                block(2, found),
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "pause_turn"},
                    "usage": {"output_tokens": 2},
                },
                {"type": "message_stop"},
            ],
            done=False,
        )
        again = await server.next_call()
        await again.stream(
            [
                {"type": "message_start", "message": {"usage": {"input_tokens": 5}}},
                block(0, {"type": "text", "text": "Nothing."}),
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "end_turn"},
                    "usage": {"output_tokens": 1},
                },
                {"type": "message_stop"},
            ],
            done=False,
        )

    assert again.body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me look. "},
                {**search, "input": {"query": "x"}},
                found,
            ],
        }
    ]
    assert asker.response is not None
    assert asker.response.text == "Let me look. Nothing."
    assert asker.response.usage == MessageUsage(8, 3, 11)
    assert asker.response.finish_reason == "end_turn"


def block(index: int, content: dict[str, object]) -> dict[str, object]:
    return {"type": "content_block_start", "index": index, "content_block": content}


def piece(index: int, delta: dict[str, object]) -> dict[str, object]:
    return {"type": "content_block_delta", "index": index, "delta": delta}
