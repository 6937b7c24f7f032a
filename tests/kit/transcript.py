"""Reads `docs/reference/first-run.md`: a session as text becomes steps that can be played.

Every fenced block has to be understood; one that is not is an error, so that nothing of the
contract is passed over in silence.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Exchange:
    """A request and its answer. `None` as body: none."""

    line: int
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    status: int
    answer_headers: dict[str, str]
    answer: Any


@dataclass(frozen=True)
class EventStream:
    """A request answered by server-sent events: (id, data) each."""

    line: int
    path: str
    headers: dict[str, str]
    status: int
    answer_headers: dict[str, str]
    events: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Sent:
    """A frame the client sends."""

    line: int
    frame: dict[str, Any]


@dataclass(frozen=True)
class Received:
    """A frame the client gets."""

    line: int
    frame: dict[str, Any]


@dataclass(frozen=True)
class ProviderCall:
    """A model call the provider gets; `added`: what comes to the messages of the call before."""

    line: int
    body: dict[str, Any] | None = None
    added: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class ProviderAnswer:
    """The stream the provider sends when the test releases the call."""

    line: int
    chunks: tuple[dict[str, Any], ...]


Step: TypeAlias = Exchange | EventStream | Sent | Received | ProviderCall | ProviderAnswer


@dataclass
class Section:
    """One numbered section of the document."""

    title: str
    steps: list[Step] = field(default_factory=list)


class TranscriptError(Exception):
    """The document says something this reader does not understand."""


_HEADING = re.compile(r"## (\d+)\. (.*)")
_REQUEST = re.compile(r"(GET|POST|PATCH|PUT|DELETE) (/\S*) *(.*)")
_HEADER = re.compile(r"([A-Z][A-Za-z-]*): (.*)")
_STATUS = re.compile(r"(\d{3})\b *(.*)")


def parse(text: str) -> dict[int, Section]:
    """Read the document: {number of the section: its steps in order}."""
    sections: dict[int, Section] = {}
    current: Section | None = None
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        if heading := _HEADING.fullmatch(line):
            current = sections[int(heading[1])] = Section(heading[2])
        elif line.startswith("```"):
            block: list[str] = []
            for _, inner in lines:
                if inner == "```":
                    break
                block.append(inner)
            if current is None:
                raise TranscriptError(f"line {number}: a block before the first section")
            current.steps += _parse_block(number + 1, block)
    return sections


def _parse_block(line: int, block: list[str]) -> list[Step]:
    text = "\n".join(block)
    if block[0].startswith(("→", "←")):
        return _frames(line, text)
    if block[0].startswith("{"):
        return [_provider(line, tuple(_documents(line, text)))]
    request = _REQUEST.fullmatch(block[0])
    if request is None:
        raise TranscriptError(f"line {line}: not a request: {block[0]}")
    return [_exchange(line, request, block[1:])]


def _frames(line: int, text: str) -> list[Step]:
    steps: list[Step] = []
    for part in re.split(r"^(?=[→←])", text, flags=re.MULTILINE)[1:]:
        (frame,) = _documents(line, part[1:])
        steps.append(Sent(line, frame) if part[0] == "→" else Received(line, frame))
        line += part.count("\n")
    return steps


def _provider(line: int, documents: tuple[dict[str, Any], ...]) -> Step:
    first = documents[0]
    if "choices" in first:
        return ProviderAnswer(line, documents)
    if "role" in first:
        return ProviderCall(line, added=documents)
    if "messages" in first and len(documents) == 1:
        return ProviderCall(line, body=first)
    raise TranscriptError(f"line {line}: neither a call nor an answer of the provider")


def _exchange(line: int, request: re.Match[str], rest: list[str]) -> Step:
    headers, rest = _headers(rest)
    status_at = next((i for i, text in enumerate(rest) if _STATUS.fullmatch(text)), None)
    if status_at is None:
        raise TranscriptError(f"line {line}: a request without an answer")
    body = _one_or_none(line, [request[3], *rest[:status_at]])
    status = _STATUS.fullmatch(rest[status_at])
    assert status is not None
    answer_headers, answer_lines = _headers([status[2], *rest[status_at + 1 :]])
    if headers.get("Accept") == "text/event-stream":
        events = _events(line, answer_lines)
        return EventStream(line, request[2], headers, int(status[1]), answer_headers, events)
    return Exchange(
        line,
        request[1],
        request[2],
        headers,
        body,
        int(status[1]),
        answer_headers,
        _one_or_none(line, answer_lines),
    )


def _headers(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    headers: dict[str, str] = {}
    for count, line in enumerate(lines):
        header = _HEADER.fullmatch(line.strip())
        if header is None:
            return headers, lines[count:]
        headers[header[1]] = header[2]
    return headers, []


def _events(line: int, lines: list[str]) -> tuple[tuple[str, Any], ...]:
    events = []
    for part in "\n".join(lines).strip().split("\n\n"):
        fields = dict(text.split(": ", 1) for text in part.splitlines())
        if set(fields) != {"id", "data"}:
            raise TranscriptError(f"line {line}: an event without id and data")
        events.append((fields["id"], json.loads(fields["data"])))
    return tuple(events)


def _one_or_none(line: int, lines: list[str]) -> Any:
    documents = _documents(line, "\n".join(lines))
    if len(documents) > 1:
        raise TranscriptError(f"line {line}: more than one body")
    return documents[0] if documents else None


def _documents(line: int, text: str) -> list[Any]:
    decoder, documents, position = json.JSONDecoder(), [], 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        try:
            document, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise TranscriptError(f"line {line}: not JSON: {error}") from error
        documents.append(document)
    return documents
