"""The OpenAI family over a real socket."""

import logging
from typing import Any

import httpx2
import pytest
import trio

from pipelit.engine.messages import MessageUsage, ToolCall
from pipelit.llm.types import InvalidToolCall, ToolSpec
from tests.kit.model_server import ModelServer
from tests.llm.asking import DONE, Asker, message, request, spec

CALCULATOR = ToolSpec(
    "calculator",
    "Evaluate an arithmetic expression.",
    {"type": "object", "properties": {"expression": {"type": "string"}}},
)


async def test_a_request_has_exactly_the_fields_of_the_contract(
    http: httpx2.AsyncClient, server: ModelServer, nursery: trio.Nursery
) -> None:
    """Unset parameters are left out and an assistant without text has `content: null`."""
    asker = Asker(http, spec(server.url))
    asked = request(
        message("system", "Answer in one sentence."),
        message("user", "What is 12*17?"),
        message("assistant", "", tool_calls=(ToolCall("call_1", "calculator", {"e": "ä"}),)),
        message("tool", "204", tool_call_id="call_1", name="calculator"),
        tools=(CALCULATOR,),
        temperature=0.5,
        max_tokens=200,
    )
    nursery.start_soon(asker.ask, asked)

    call = await server.next_call()
    await call.stream(DONE)

    assert call.path == "/v1/chat/completions"
    assert call.headers["authorization"] == "Bearer sk-demo-0123456789abcdef"
    assert call.body == {
        "model": "demo-1",
        "messages": [
            {"role": "system", "content": "Answer in one sentence."},
            {"role": "user", "content": "What is 12*17?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "calculator", "arguments": '{"e":"ä"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "204"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "calculator",
                    "description": "Evaluate an arithmetic expression.",
                    "parameters": CALCULATOR.parameters,
                },
            }
        ],
        "temperature": 0.5,
        "max_tokens": 200,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_a_stream_adds_up(
    http: httpx2.AsyncClient, server: ModelServer, nursery: trio.Nursery
) -> None:
    """Pieces of text are told as they come; calls, usage and reason are in the response."""
    asker = Asker(http, spec(server.url))
    with trio.fail_after(5):
        async with trio.open_nursery() as calls:
            calls.start_soon(asker.ask, request())
            call = await server.next_call()
            await call.stream(
                [
                    _delta({"role": "assistant", "content": "12*17"}),
                    _delta({"content": " is 204."}),
                    _delta({"tool_calls": [_call(0, "call_1", "calculator", '{"a": ')]}),
                    _delta({"tool_calls": [_call(1, "call_2", "clock", "")]}),
                    _delta({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
                    {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
                    {"choices": [], "usage": {"prompt_tokens": 58, "completion_tokens": 15}},
                ]
            )

    assert asker.texts == ["12*17", " is 204."]
    assert asker.alive > 0
    response = asker.response
    assert response is not None
    assert response.text == "12*17 is 204."
    assert response.calls == (
        ToolCall("call_1", "calculator", {"a": 1}),
        ToolCall("call_2", "clock", {}),
    )
    assert response.usage == MessageUsage(58, 15, 73)
    assert response.finish_reason == "tool_calls"


async def test_an_answer_in_one_body_is_taken_as_it_is(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """A provider that does not stream gives the same response and no pieces."""
    asker = Asker(http, spec(server.url))
    body = {
        "choices": [
            {"index": 0, "message": {"content": "Hello."}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.ask, request())
        await (await server.next_call()).respond(200, body)

    assert asker.texts == []
    assert asker.response is not None
    assert asker.response.text == "Hello."
    assert asker.response.usage == MessageUsage(3, 2, 5)


async def test_a_provider_that_refuses_streams_is_asked_without_and_remembered(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """The refusal costs one request, once for a credential and model."""
    asker = Asker(http, spec(server.url))
    body = {"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.ask, request())
        refused = await server.next_call()
        await refused.respond(400, {"error": {"message": "stream_options is not supported"}})
        plain = await server.next_call()
        await plain.respond(200, body)

    async with trio.open_nursery() as calls:
        calls.start_soon(asker.ask, request())
        again = await server.next_call()
        await again.respond(200, body)

    assert refused.body["stream"] is True
    for call in (plain, again):
        assert "stream" not in call.body
        assert "stream_options" not in call.body
    assert server.waiting_calls == 0


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "BadRequestError", False),
        (401, "AuthenticationError", False),
        (403, "PermissionDeniedError", False),
        (404, "NotFoundError", False),
        (409, "ConflictError", True),
        (422, "UnprocessableEntityError", False),
        (429, "RateLimitError", True),
        (500, "InternalServerError", True),
        (503, "InternalServerError", True),
    ],
)
async def test_a_refusal_says_the_status_and_never_the_providers_words(
    http: httpx2.AsyncClient, server: ModelServer, status: int, code: str, retryable: bool
) -> None:
    """`provider returned HTTP 429`, code the SDK's class; only some are tried again."""
    asker = Asker(http, spec(server.url))
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.try_ask, request())
        await (await server.next_call()).respond(status, {"error": {"message": "sk-secret"}})

    error = asker.error
    assert error is not None
    assert str(error) == f"provider returned HTTP {status}"
    assert (error.code, error.retryable, error.status) == (code, retryable, status)


async def test_the_sdk_retries_inside_one_attempt(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """With `max_retries` a 429 is repeated after the time the provider asked for."""
    asker = Asker(http, spec(server.url, max_retries=2))
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.ask, request())
        await (await server.next_call()).respond(429, {}, retry_after_ms="1")
        await (await server.next_call()).say("Hello.")

    assert asker.response is not None
    assert asker.response.text == "Hello."


async def test_silence_ends_a_call(http: httpx2.AsyncClient, server: ModelServer) -> None:
    """`timeout` seconds without a byte fail the call and close its connection."""
    asker = Asker(http, spec(server.url, timeout=0.05))

    with trio.fail_after(5):
        await asker.try_ask(request())

    call = await server.next_call()
    await call.wait_gone()
    assert asker.error is not None
    assert asker.error.code == "APITimeoutError"
    assert asker.error.retryable


async def test_silence_in_the_middle_of_an_answer_ends_it_too(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """Pieces that came do not excuse the ones that do not."""
    asker = Asker(http, spec(server.url, timeout=0.2))
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.try_ask, request())
        call = await server.next_call()
        await call.begin()
        await call.send_events([_delta({"content": "12"})])
        await call.wait_gone()

    assert asker.error is not None
    assert asker.error.code == "APITimeoutError"


async def test_nobody_listening_is_a_connection_error(http: httpx2.AsyncClient) -> None:
    """A provider that is not there is worth another attempt."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    asker = Asker(http, spec(f"http://127.0.0.1:{port}/v1"))

    await asker.try_ask(request())

    assert asker.error is not None
    assert (asker.error.code, asker.error.retryable) == ("APIConnectionError", True)


@pytest.mark.parametrize("mid_stream", [False, True])
async def test_cancelling_closes_the_connection_at_once(
    http: httpx2.AsyncClient, server: ModelServer, mid_stream: bool
) -> None:
    """The provider sees the end of the connection, before the answer and in the middle of it."""
    asker = Asker(http, spec(server.url))
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.ask, request())
        call = await server.next_call()
        if mid_stream:
            await call.begin()
            await call.send_events([_delta({"content": "12"})])
            while not asker.texts:
                await trio.lowlevel.checkpoint()

        calls.cancel_scope.cancel()
        with trio.fail_after(5):
            await call.wait_gone()

    assert asker.response is None


async def test_a_call_after_a_cancelled_one_works(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """A cancelled call leaves nothing behind in the shared client."""
    asker = Asker(http, spec(server.url))
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.ask, request())
        await server.next_call()
        calls.cancel_scope.cancel()

    async with trio.open_nursery() as calls:
        calls.start_soon(asker.ask, request())
        await (await server.next_call()).say("Hello.")

    assert asker.response is not None


async def test_own_headers_are_sent_but_do_not_replace_ours(
    http: httpx2.AsyncClient, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Authorization`, `x-api-key` and `Host` stay; the server's environment adds nothing."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-server")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-the-server")
    own = {"X-Team": "ops", "authorization": "Bearer no", "X-API-Key": "no", "HOST": "no.example"}
    asker = Asker(http, spec(server.url, custom_headers=own, organization_id="org-1"))
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.ask, request())
        call = await server.next_call()
        await call.say("Hello.")

    assert call.headers["x-team"] == "ops"
    assert call.headers["authorization"] == "Bearer sk-demo-0123456789abcdef"
    assert "x-api-key" not in call.headers
    assert call.headers["host"] == server.address.removeprefix("http://")
    assert call.headers["openai-organization"] == "org-1"
    assert "openai-project" not in call.headers


async def test_without_a_key_there_is_no_authorization(
    http: httpx2.AsyncClient, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local provider needs no key, and the server's own is not sent instead."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-server")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-of-the-server")
    asker = Asker(http, spec(server.url, api_key=""))
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.ask, request())
        call = await server.next_call()
        await call.say("Hello.")

    assert "authorization" not in call.headers


async def test_no_secret_is_logged(
    http: httpx2.AsyncClient, server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDKs log at DEBUG; keys and headers of a credential are not among it."""
    for logger in ("", "openai", "anthropic", "httpx2", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=logger)
    for kind in ("openai", "anthropic"):
        own = {"X-Token": "own-0123456789"}
        asker = Asker(http, spec(server.url, provider_type=kind, custom_headers=own))
        async with trio.open_nursery() as calls:
            calls.start_soon(asker.try_ask, request())
            call = await server.next_call()
            await call.respond(400, {})
        assert call.headers["x-token"] == "own-0123456789"

    assert caplog.text
    assert "0123456789" not in caplog.text


async def test_a_transient_refusal_is_not_taken_for_one_of_streams(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """`Too many streams` is a rate limit."""
    asker = Asker(http, spec(server.url))
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.try_ask, request())
        await (await server.next_call()).respond(429, {"error": {"message": "too many streams"}})

    assert asker.error is not None
    assert asker.error.code == "RateLimitError"
    assert server.waiting_calls == 0


async def test_glm_gets_fewer_parameters(http: httpx2.AsyncClient, server: ModelServer) -> None:
    """`glm` knows temperature, max_tokens and top_p."""
    everything = {
        "temperature": 0.1,
        "max_tokens": 5,
        "top_p": 0.9,
        "frequency_penalty": 0.2,
        "presence_penalty": 0.3,
        "response_format": {"type": "json_object"},
    }
    bodies = {}
    for kind in ("glm", "openai"):
        asker = Asker(http, spec(server.url, provider_type=kind))
        async with trio.open_nursery() as calls:
            calls.start_soon(asker.ask, request(**everything))
            call = await server.next_call()
            await call.say("Hello.")
        bodies[kind] = call.body

    assert everything.items() <= bodies["openai"].items()
    assert set(bodies["glm"]) & set(everything) == {"temperature", "max_tokens", "top_p"}


async def test_nothing_that_may_not_be_sent_is_sent(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """Empty messages and blocks, and thinking, are dropped before the call."""
    asker = Asker(http, spec(server.url))
    asked = request(
        message("user", [{"type": "text", "text": ""}, {"type": "text", "text": "Hi"}]),
        message("assistant", [{"type": "thinking", "thinking": "…"}]),
        message("user", ""),
    )
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.ask, asked)
        call = await server.next_call()
        await call.say("Hello.")

    assert call.body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]


async def test_arguments_that_are_no_object_are_kept_for_the_model(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """Bad arguments do not fail the call; a call without an id gets one."""
    asker = Asker(http, spec(server.url))
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.ask, request())
        await (await server.next_call()).stream(
            [
                _delta({"tool_calls": [_call(0, "call_1", "calculator", "[1")]}),
                _delta({"tool_calls": [{"index": 1, "function": {"name": "clock"}}]}),
                *DONE,
            ]
        )

    assert asker.response is not None
    assert asker.response.calls == (
        InvalidToolCall("call_1", "calculator", "[1"),
        ToolCall("call_m1_1", "clock", {}),
    )


@pytest.mark.parametrize(
    "data",
    [b"data: {nonsense}\n\n", b"<html>busy</html>\n", b'{"hello": 1}', b"", b"data: [1]\n\n"],
)
async def test_an_answer_that_is_none_fails_the_call(
    http: httpx2.AsyncClient, server: ModelServer, data: bytes
) -> None:
    """Garbage and an answer that stops before its end are failures, worth another attempt."""
    asker = Asker(http, spec(server.url))
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.try_ask, request())
        call = await server.next_call()
        await call.begin()
        await call.send(data)
        await call.end()

    assert asker.error is not None
    assert (asker.error.code, asker.error.retryable) == ("APIResponseValidationError", True)


async def test_an_answer_without_its_end_marker_counts_if_it_has_a_reason(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """Some providers leave out `[DONE]`."""
    asker = Asker(http, spec(server.url))
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.ask, request())
        await (await server.next_call()).stream([_delta({"content": "Hi"}), *DONE], done=False)

    assert asker.response is not None
    assert asker.response.text == "Hi"


async def test_a_connection_that_breaks_in_the_middle_fails_the_call(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """Half an answer is none."""
    asker = Asker(http, spec(server.url))
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.try_ask, request())
        call = await server.next_call()
        await call.begin()
        await call.send_events([_delta({"content": "12"})])
        await call.abort()

    assert asker.error is not None
    assert (asker.error.code, asker.error.retryable) == ("APIConnectionError", True)


async def test_an_error_inside_the_stream_fails_the_call(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """An error after the status is one all the same, and its words stay out."""
    asker = Asker(http, spec(server.url))
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.try_ask, request())
        await (await server.next_call()).stream([{"error": {"message": "sk-secret"}}])

    assert asker.error is not None
    assert (str(asker.error), asker.error.code) == ("provider reported an error", "APIError")


async def test_an_endless_answer_is_broken_off(
    http: httpx2.AsyncClient, server: ModelServer
) -> None:
    """No provider can fill the server's memory."""
    asker = Asker(http, spec(server.url))
    piece = b": keep alive " + b"x" * 1_000_000 + b"\n\n"
    async with trio.open_nursery() as calls:
        calls.start_soon(asker.try_ask, request())
        call = await server.next_call()
        await call.begin()
        with trio.fail_after(20):
            while asker.error is None and not call.is_gone:
                try:
                    await call.send(piece)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    break
        await call.wait_gone()

    assert asker.error is not None
    assert asker.error.code == "APIResponseValidationError"


async def test_a_connection_is_used_again(http: httpx2.AsyncClient, server: ModelServer) -> None:
    """A complete answer is read to its last byte, so the next call needs no new connection."""
    asker = Asker(http, spec(server.url))
    for _ in range(2):
        async with trio.open_nursery() as calls:
            calls.start_soon(asker.ask, request())
            await (await server.next_call()).say("Hello.")

    assert server.connections == 1


def _delta(delta: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def _call(index: int, call_id: str, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": call_id, "type": "function", "function": function}
