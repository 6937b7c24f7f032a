"""A model that follows a script, behind the chat completions API on a real loopback socket.

It ships with the product: `pipelit demo` and the tutorial run without an account anywhere, and a
hanging answer shows what cancelling does. It says in its answers that it is scripted.
"""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import msgspec
import trio

from pipelit.llm.loopback import Exchange, serve_http

DEMO_MODEL = "demo-1"


class Ask(msgspec.Struct, frozen=True):
    """What a script decides on: the conversation in wire form and the functions offered."""

    model: str
    messages: list[dict[str, Any]]
    tools: tuple[str, ...] = ()

    def last_text(self, role: str) -> str:
        """Return the text of the last message with *role*, or nothing."""
        for message in reversed(self.messages):
            if message.get("role") == role:
                content = message.get("content")
                return content if isinstance(content, str) else ""
        return ""


class Say(msgspec.Struct, frozen=True):
    """Answer with text, in pieces, `pause` seconds before each."""

    pieces: tuple[str, ...]
    pause: float = 0.0


class Call(msgspec.Struct, frozen=True):
    """Call a tool."""

    name: str
    arguments: dict[str, Any]


class Hang(msgspec.Struct, frozen=True):
    """Never answer."""


Move: TypeAlias = Say | Call | Hang
Script: TypeAlias = Callable[[Ask], Move]


async def serve_scripted(
    script: Script,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *script* until cancelled.

    Started with `nursery.start` it returns the base URL for a credential,
    `http://127.0.0.1:<port>/v1`.
    """
    async with trio.open_nursery() as nursery:
        address = await nursery.start(
            partial(serve_http, partial(_answer, script), host=host, port=port)
        )
        task_status.started(f"{address}/v1")


MAX_QUESTION_CHARS = 1000
"""So far a question is searched for arithmetic: the search is quadratic."""

_ARITHMETIC = re.compile(r"[(\s-]*\d[\d\s.()*/+%-]*[*/+%-][\d\s.()*/+%-]*\d\)*")
_CATEGORY = re.compile(r"^- (\S+): (.*)$", re.MULTILINE)
_LETTERS = re.compile(r"\w{4,}")
_WORDS = re.compile(r"\S+\s*")
_PAUSE = 0.04


def demo_script(ask: Ask) -> Move:
    """Do sums with the calculator, hang when told to, and never pretend to be a real model.

    It also sorts a message into categories by their words, and searches when told to.
    """
    question = ask.last_text("user")
    if re.search(r"\bhang\b", question, re.IGNORECASE):
        return Hang()
    if '{"category": ' in ask.last_text("system"):
        return Say((_json({"category": _category(question, ask.last_text("system"))}).decode(),))
    if ask.messages and ask.messages[-1].get("role") == "tool":
        return _speak(f"{_asked(ask)} is {ask.last_text('tool')}, says this scripted model.")
    found = _ARITHMETIC.search(question[:MAX_QUESTION_CHARS])
    if found is None and "web_search" in ask.tools and "search" in question.lower():
        return Call("web_search", {"query": question})
    if found is None:
        return _speak(
            "I am a scripted model that comes with Pipelit: I only do sums, "
            "so ask me what 12*17 is, or tell me to hang and cancel the run."
        )
    if "calculator" in ask.tools:
        return Call("calculator", {"expression": found.group().strip()})
    return _speak("I am a scripted model and do sums only with a calculator connected to me.")


def _category(question: str, system: str) -> str:
    """Return the category whose description shares a word with the question, else the last."""
    words = set(_LETTERS.findall(question.lower()))
    listed = _CATEGORY.findall(system)
    fitting = (name for name, about in listed if words & set(_LETTERS.findall(about.lower())))
    return next(fitting, listed[-1][0] if listed else "")


def _speak(text: str) -> Say:
    return Say(tuple(_WORDS.findall(text)), _PAUSE)


def _asked(ask: Ask) -> str:
    for message in reversed(ask.messages):
        for call in message.get("tool_calls") or ():
            arguments = msgspec.json.decode(call["function"]["arguments"])
            return str(arguments.get("expression", arguments.get("query", "that")))
    return "that"


async def _answer(script: Script, exchange: Exchange) -> None:
    request = exchange.request
    route = (request.method, request.path.partition("?")[0])
    if route == ("GET", "/v1/models"):
        models = [{"id": DEMO_MODEL, "object": "model", "owned_by": "pipelit"}]
        await exchange.respond(200, _json({"object": "list", "data": models}))
    elif route == ("POST", "/v1/chat/completions"):
        await _complete(script, exchange)
    else:
        await exchange.respond(404, _json({"error": {"message": "no such path"}}))


async def _complete(script: Script, exchange: Exchange) -> None:
    try:
        body = msgspec.json.decode(exchange.request.body, type=_Completion)
    except (msgspec.DecodeError, UnicodeDecodeError):
        await exchange.respond(400, _json({"error": {"message": "not a completion request"}}))
        return
    names = tuple(str(tool["function"]["name"]) for tool in body.tools)
    move = script(Ask(body.model, body.messages, names))
    if isinstance(move, Hang):
        await trio.sleep_forever()
    elif body.stream:
        await _stream(exchange, body, move)
    else:
        await exchange.respond(200, _json(_whole(body, move)))


class _Completion(msgspec.Struct):
    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    stream: bool = False


async def _stream(exchange: Exchange, body: _Completion, move: Say | Call) -> None:
    await exchange.start()
    deltas: list[dict[str, Any]]
    if isinstance(move, Say):
        deltas = [{"content": piece} for piece in move.pieces]
        pause = move.pause
    else:
        deltas = [{"role": "assistant", "tool_calls": [_tool_call(body, move) | {"index": 0}]}]
        pause = 0.0
    for delta in deltas:
        await trio.sleep(pause)
        await exchange.send(_event(body, [_choice({"delta": delta}, None)]))
    await exchange.send(_event(body, [_choice({"delta": {}}, _reason(move))]))
    await exchange.send(_event(body, [], usage=_usage(body, move)))
    await exchange.send(b"data: [DONE]\n\n")
    await exchange.end()


def _whole(body: _Completion, move: Say | Call) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    if isinstance(move, Say):
        message["content"] = "".join(move.pieces)
    else:
        message |= {"content": None, "tool_calls": [_tool_call(body, move)]}
    return _envelope(body, "chat.completion") | {
        "choices": [_choice({"message": message}, _reason(move))],
        "usage": _usage(body, move),
    }


def _event(body: _Completion, choices: list[dict[str, Any]], **more: Any) -> bytes:
    chunk = _envelope(body, "chat.completion.chunk") | {"choices": choices} | more
    return b"data: " + _json(chunk) + b"\n\n"


def _envelope(body: _Completion, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-scripted", "object": kind, "created": 0, "model": body.model}


def _choice(words: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {"index": 0, **words, "finish_reason": reason}


def _reason(move: Say | Call) -> str:
    return "stop" if isinstance(move, Say) else "tool_calls"


def _tool_call(body: _Completion, move: Call) -> dict[str, Any]:
    # Conversations only grow, so their length makes the id unique in one.
    return {
        "id": f"call_{len(body.messages)}",
        "type": "function",
        "function": {"name": move.name, "arguments": _json(move.arguments).decode()},
    }


def _usage(body: _Completion, move: Say | Call) -> dict[str, int]:
    given = math.ceil(len(_json(body.messages)) / 4)
    made = math.ceil(len(_json(move)) / 4)
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
