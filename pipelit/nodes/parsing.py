"""Runs the parser attached to a node: on the node's own text or on another node's output.

Contract: node-types.md §6.2.
"""

from typing import Any

import msgspec

from pipelit.engine.operators import MAX_PATTERN_CHARS, MAX_SUBJECT_CHARS
from pipelit.engine.outcome import Warning_
from pipelit.engine.parsers import FindAll, parse
from pipelit.engine.values import to_text
from pipelit.nodes.base import NodeCall
from pipelit.nodes.items import read_output
from pipelit.nodes.worker import WorkerError, WorkerPool


class Parsed(msgspec.Struct, frozen=True):
    """What a parser made of a text. A text that does not fit is its own result."""

    value: Any
    warnings: tuple[Warning_, ...] = ()


class OutputParsing:
    """Parses texts; regular expressions run in the worker pool."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    async def parse(self, call: NodeCall, text: str) -> Parsed | None:
        """Return what the parser attached to a node makes of *text*; None without a parser."""
        if call.attached.output_parser is None:
            return None
        config: dict[str, Any] = call.attached.output_parser[1].get("extra_config") or {}
        source = to_text(config.get("source_node"))
        subject = to_text(read_output(call, source)) if source else text
        found = parse(config, subject)
        return (
            await self._find_all(found.pattern, subject)
            if isinstance(found, FindAll)
            else Parsed(found)
        )

    async def _find_all(self, pattern: str, subject: str) -> Parsed:
        if not pattern or len(pattern) > MAX_PATTERN_CHARS:
            problem = f"the pattern must have 1 to {MAX_PATTERN_CHARS} characters"
            return _unparsed(subject, "parser_bad_pattern", problem)
        try:
            matches = await self._pool.find_all(pattern, subject[:MAX_SUBJECT_CHARS])
        except WorkerError as error:
            problem = str(error) or "the regular expression timed out"
            return _unparsed(subject, "parser_bad_pattern", problem)
        if not matches:
            return _unparsed(subject, "parser_no_match", f"'{pattern[:200]}' was not found")
        return Parsed(matches)


def _unparsed(text: str, code: str, problem: str) -> Parsed:
    return Parsed(text, ({"code": code, "message": problem},))
