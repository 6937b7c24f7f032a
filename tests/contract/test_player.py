"""The player of the first-run document: what it accepts, and that nothing wrong gets past it."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from tests.kit.matching import Matcher, Mismatch
from tests.kit.model_server import ModelServer, model_server
from tests.kit.player import Player
from tests.kit.transcript import (
    EventStream,
    Exchange,
    ProviderCall,
    Received,
    Section,
    Step,
    TranscriptError,
    parse,
)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "reference" / "first-run.md").read_text("utf-8")
FIRST, SECOND = "3f1c8a52-6d0e-4b7f-9a55-0c2e8d714b90", "8b42d7e1-05fa-4c3b-b6de-91a7f3c02d58"


class Parrot:
    """A server that says what a document says, in the document's order."""

    def __init__(self, document: str) -> None:
        self.steps = [step for section in parse(document).values() for step in section.steps]
        self._exchanges = [s for s in self.steps if isinstance(s, Exchange | EventStream)]
        self._frames: dict[str, list[Any]] = defaultdict(list)
        for step in self.steps:
            if isinstance(step, Received):
                self._frames[step.frame["channel"]].append(step.frame)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        step = self._exchanges.pop(0)
        assert request.url.raw_path.decode() == step.path
        headers = step.answer_headers | {"X-Request-ID": "r-1"}
        if isinstance(step, EventStream):
            lines = [f"id: {name}\ndata: {json.dumps(data)}\n\n" for name, data in step.events]
            return httpx2.Response(step.status, headers=headers, text="".join(lines))
        return httpx2.Response(step.status, headers=headers, json=step.answer)

    async def send(self, frame: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()

    async def receive(self, channel: str) -> Any:
        await trio.lowlevel.checkpoint()
        frames = self._frames.get(channel)
        if not frames:
            raise Mismatch(f"a frame of {channel} is missing")
        return frames.pop(0)

    async def call_the_provider(self, provider: ModelServer) -> None:
        messages: list[Any] = []
        body: dict[str, Any] = {}
        async with httpx2.AsyncClient(trust_env=False, timeout=5) as http:
            for step in self.steps:
                if isinstance(step, ProviderCall):
                    body = step.body or body
                    messages = [*(body["messages"] if step.body else messages), *step.added]
                    call = body | {"messages": messages}
                    await http.post(f"{provider.url}/chat/completions", json=call)


async def play(document: str) -> Player:
    """Play the true document against a server that says *document*."""
    parrot = Parrot(document)
    async with (
        model_server() as provider,
        httpx2.AsyncClient(
            transport=httpx2.MockTransport(parrot.answer), base_url="http://pipelit"
        ) as http,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(parrot.call_the_provider, provider)
        player = Player(http, provider)
        player.socket = parrot
        try:
            for section in parse(DOCUMENT).values():
                await player.play(section.steps)
        except Mismatch as mismatch:
            nursery.cancel_scope.cancel()
            error: Mismatch | None = mismatch
        else:
            error = None
    if error is not None:
        raise error
    return player


async def test_the_document_agrees_with_itself() -> None:
    """Every step is played, and a server that says the same words passes."""
    player = await play(DOCUMENT)

    assert player.matcher.key() == "fR3v0b1mZk4u9Hn2T7cXy8LrWsE5aJdF6gKiMoNqRt0"
    assert len(player.matcher.copies(FIRST)) == 11
    assert len(player.matcher.copies(SECOND)) == 6


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (FIRST, "00000000-0000-4000-8000-000000000001"),
        ("fR3v0b1mZk4u9Hn2T7cXy8LrWsE5aJdF6gKiMoNqRt0", "x" * 43),
        ('"version": "0.1.0"', '"version": "1.12.3"'),
        ("2026-03-02T09:05:00.031000", "2027-01-01T00:00:00"),
        ('"timestamp": 1772442300.284', '"timestamp": 1882442300'),
        ('"duration_ms": 248', '"duration_ms": 9'),
        ('"id": "m2"', '"id": "0198c0de"'),
        ("The provider reported no usage.", "No usage."),
        ('"description": "Arithmetic expression"', '"description": "What to compute"'),
        (r'"{\"expression\": \"12*17\"}"', r'"{\"expression\":\"12*17\"}"'),
        ('"12*17"}, "finish_reason"', '"12*17"},  "finish_reason"'),
    ],
)
async def test_what_varies_may_vary(old: str, new: str) -> None:
    """Values of the document's first table are compared by form."""
    assert old in DOCUMENT

    await play(DOCUMENT.replace(old, new))


async def test_pieces_of_text_may_arrive_joined() -> None:
    """Only their sum and their numbering count."""
    first, second, third = (_delta_line(index) for index in range(3))
    joined = first.replace('"text": "12*17"', '"text": "12*17 is 204."')
    assert joined != first

    await play(DOCUMENT.replace(first + second + third, joined))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"needs_setup": false', '"needs_setup": true'),
        ('"mfa_enabled": false}', '"mfa_enabled": false, "email": null}'),
        ('"requires_mfa": false', '"requires_mfa": 0'),
        (', "custom_headers": {}}', "}"),
        ("fR3v0b1mZk4u9Hn2T7cXy8LrWsE5aJdF6gKiMoNqRt0", "short"),
        ('"node_count": 0, "edge_count": 0', '"node_count": 0, "edge_count": 1'),
        ('"id": 3, "node_id": "agent_1"', '"id": 7, "node_id": "agent_1"'),
        ('"updated_at": "2026-03-02T09:00:20.100000"', '"updated_at": "2026-03-02T09:00:21"'),
        ("2026-03-02T09:00:30.010000", "2026-03-02 09:00:30"),
        ('"last_seq": 3', '"last_seq": 2'),
        ('200   Idempotent-Replayed: true\n{"execution_id": "3f', '200\n{"execution_id": "3f'),
        ('"seq": 9', '"seq": 10'),
        ('"node_id": "calc", "status": "running"', '"node_id": "calc", "status": "pending"'),
        ('"text": " is ", "index": 1', '"text": " is ", "index": 2'),
        ('"text": "204.", "index": 2', '"text": "205.", "index": 2'),
        ('"duration_ms": 1}}\n', '"duration_ms": -1}}\n'),
        ('"tool_invocations": 1', '"tool_invocations": 2'),
        ('"reason": "execution cancelled"', '"reason": "Execution cancelled"'),
        ('"llm_calls": 1, "retry_of": null}\n```', '"llm_calls": 0, "retry_of": null}\n```'),
        ('"total": 2, "last_seq": 11', '"total": 2, "last_seq": 12'),
        ("id: 11\n", "id: 12\n"),
        ("Content-Type: text/event-stream", "Content-Type: text/plain"),
        ('"has_more": true', '"has_more": false'),
        ('"stream": true', '"stream": false'),
        ('"description": "Evaluate an arithmetic expression."', '"description": "Compute."'),
        ('"role": "tool", "tool_call_id": "call_1", "content": "204"', '"role": "tool"'),
        ('200 {"ok": true', '201 {"ok": true'),
    ],
)
async def test_anything_else_is_a_mismatch(old: str, new: str) -> None:
    """One wrong value, field, status or header anywhere fails the play."""
    assert old in DOCUMENT

    with pytest.raises(Mismatch):
        await play(DOCUMENT.replace(old, new))


@pytest.mark.parametrize("wrong", range(3))
async def test_a_copy_of_an_event_must_equal_the_first(wrong: int) -> None:
    """An event said again, by socket, REST or stream, is the same event."""
    text = '"seq": 11'
    places = list(_places(text))[1:]
    place = DOCUMENT.rindex('"timestamp": 1772442300.284', 0, places[wrong])
    changed = DOCUMENT[:place] + DOCUMENT[place:].replace("1772442300.284", "1772442300.3", 1)

    with pytest.raises(Mismatch, match="another copy"):
        await play(changed)


async def test_a_missing_frame_is_a_mismatch() -> None:
    """Silence is no answer."""
    line = _delta_line(2)

    with pytest.raises(Mismatch, match="missing"):
        await play(DOCUMENT.replace(line, ""))


def test_ids_are_filled_in_everywhere() -> None:
    """Inside channels and paths too; values not yet known stay."""
    matcher = Matcher()
    real = "00000000-0000-4000-8000-000000000001"
    matcher.match({"execution_id": FIRST}, {"execution_id": real})

    assert matcher.fill_in({"a": [f"execution:{FIRST}"]}) == {"a": [f"execution:{real}"]}
    with pytest.raises(Mismatch):
        matcher.match(f"execution:{SECOND}", f"execution:{real}")


@pytest.mark.parametrize(
    "block",
    ["hello", "GET /ready", '{"what": 1}', '→ {"type"', "GET /a\n200 {} {}", "PING /a\n200"],
)
def test_a_block_that_is_not_understood_is_an_error(block: str) -> None:
    """Nothing of the contract is passed over in silence."""
    with pytest.raises(TranscriptError):
        parse(f"## 1. Title\n\n```json\n{block}\n```\n")


def test_every_block_of_the_document_is_read() -> None:
    """Twelve sections; the last is prose only."""
    sections: dict[int, Section] = parse(DOCUMENT)
    steps: list[Step] = [step for section in sections.values() for step in section.steps]

    assert list(sections) == list(range(1, 13))
    assert len(steps) > 60
    assert sections[12].steps == []


def _delta_line(index: int) -> str:
    start = DOCUMENT.rindex("← ", 0, DOCUMENT.index(f'"index": {index}}}}}'))
    return DOCUMENT[start : DOCUMENT.index("\n", DOCUMENT.index(f'"index": {index}}}}}')) + 1]


def _places(text: str) -> Iterator[int]:
    place = DOCUMENT.find(text)
    while place >= 0:
        yield place
        place = DOCUMENT.find(text, place + 1)
