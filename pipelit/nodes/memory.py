"""`memory_read` and `memory_write`: the tools `recall` and `remember`.

What is remembered lives behind `Memory`; nothing here knows how it is stored.

Contract: node-types.md §9.1, §9.2, engine.md §30.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import msgspec

from pipelit.engine.definition import NodeDef
from pipelit.engine.values import to_integer, to_number, to_text
from pipelit.errors import PipelitError
from pipelit.nodes.base import NodeServices, Tool, ToolContext, ToolError
from pipelit.nodes.tool_schema import tool_spec

FACT_TYPES = frozenset(
    {"user_preference", "world_knowledge", "self_knowledge", "correction", "relationship"}
)
MAX_KEY_CHARS = 255
MAX_VALUE_BYTES = 65_536

Written = Literal["created", "updated", "skipped"]

_RECALL = tool_spec(
    "recall",
    "Look up memory by key, search it by query, or list it when called without arguments.",
    {
        "key": {"type": "string", "default": "", "description": "Exact key of a fact"},
        "query": {"type": "string", "default": "", "description": "Text to search for"},
    },
)
_REMEMBER = tool_spec(
    "remember",
    "Store a fact under a key.",
    {
        "key": {"type": "string", "description": "Key of the fact"},
        "value": {"type": "string", "description": "The fact"},
        "fact_type": {
            "type": "string",
            "default": "",
            "description": "Kind of fact; empty = configured default",
        },
    },
    required=("key", "value"),
)


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Something remembered. `value` is any JSON value."""

    key: str
    value: Any
    confidence: float = 1.0
    fact_type: str = "world_knowledge"


class Procedure(msgspec.Struct, frozen=True):
    """A remembered way to do something."""

    name: str
    description: str


class MemoryFailed(PipelitError):
    """The memory cannot be read or written now; the text says why."""


class Memory(Protocol):
    """The shared memory. Every fact it returns counts as read once more.

    Every method raises `MemoryFailed` when the memory cannot be reached.
    """

    async def find_fact(self, key: str) -> Fact | None:
        """Return the global fact with exactly this key."""

    async def newest_facts(self, *, limit: int, min_confidence: float) -> Sequence[Fact]:
        """Return global facts, the last changed first."""

    async def search_facts(
        self, query: str, *, limit: int, min_confidence: float
    ) -> Sequence[Fact]:
        """Return the global facts whose key or value holds *query*, the surest first."""

    async def search_procedures(
        self, query: str, *, workflow_id: int, limit: int
    ) -> Sequence[Procedure]:
        """Return active procedures of a workflow, and global ones, that speak of *query*."""

    async def search_episodes(self, query: str, *, workflow_id: int, limit: int) -> Sequence[str]:
        """Return summaries, of a workflow and global, that hold *query*, newest first."""

    async def set_fact(self, key: str, value: Any, fact_type: str, *, overwrite: bool) -> Written:
        """Store a global fact."""


class ReadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a `memory_read` node is configured to show."""

    kinds: frozenset[str]
    limit: int
    min_confidence: float


_MAX_EPISODES = 5
_ALL_KINDS = frozenset({"facts", "episodes", "procedures"})


def read_options(config: Mapping[str, Any]) -> ReadOptions:
    """Read the resolved config of a `memory_read` node; what makes no sense reads as default."""
    extra = config.get("extra_config") or {}
    kind = to_text(extra.get("memory_type"))
    limit, confidence = to_integer(extra.get("limit")), to_number(extra.get("min_confidence"))
    return ReadOptions(
        kinds=_ALL_KINDS if kind == "all" else frozenset({kind} & _ALL_KINDS or {"facts"}),
        limit=10 if limit is None else min(max(limit, 1), 100),
        min_confidence=0.5 if confidence is None else float(min(max(confidence, 0), 1)),
    )


def memory_read_tools(
    node: NodeDef, config: dict[str, Any], _services: NodeServices, *, memory: Memory
) -> tuple[Tool, ...]:
    """Offer `recall`."""
    options = read_options(config)

    async def run(arguments: dict[str, Any], context: ToolContext) -> str:
        try:
            return await _recall(memory, options, arguments, context.caller.workflow_id)
        except MemoryFailed as error:
            text = f"Error reading memory: {error}"
            raise ToolError(text, told=text) from error

    return (Tool(spec=_RECALL, node=node, run=run),)


async def _recall(
    memory: Memory, options: ReadOptions, arguments: Mapping[str, Any], workflow_id: int
) -> str:
    search = partial(
        memory.search_facts, limit=options.limit, min_confidence=options.min_confidence
    )
    key, query = arguments.get("key", "").strip(), arguments.get("query", "").strip()
    if key:
        fact = await memory.find_fact(key)
        if fact is not None:
            return f"{key} = {_value_text(fact.value)}"
        facts = await search(key)
        return _listed(map(_show, facts)) or f"No memory found for key: {key}"
    if not query:
        newest = await memory.newest_facts(
            limit=options.limit, min_confidence=options.min_confidence
        )
        return _listed(map(_show, newest)) or "Memory is empty — no facts stored."
    found: list[dict[str, Any]] = []
    if "facts" in options.kinds:
        found += map(_show, await search(query))
    if "procedures" in options.kinds:
        procedures = await memory.search_procedures(
            query, workflow_id=workflow_id, limit=options.limit
        )
        found += ({"type": "procedure", **msgspec.structs.asdict(p)} for p in procedures)
    if "episodes" in options.kinds:
        episodes = await memory.search_episodes(query, workflow_id=workflow_id, limit=_MAX_EPISODES)
        found += ({"type": "episode", "summary": summary} for summary in episodes)
    return _listed(found) or f"No memories found for query: {query}"


def _show(fact: Fact) -> dict[str, Any]:
    return {"key": fact.key, "value": fact.value, "confidence": fact.confidence}


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _listed(entries: Any) -> str:
    """Return a JSON array, or nothing for no entries."""
    written = list(entries)
    return _json(written) if written else ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def memory_write_tools(
    node: NodeDef, config: dict[str, Any], _services: NodeServices, *, memory: Memory
) -> tuple[Tool, ...]:
    """Offer `remember`."""
    extra = config.get("extra_config") or {}
    default_type = to_text(extra.get("fact_type")) or "world_knowledge"
    overwrite = extra.get("overwrite") is not False

    async def run(arguments: dict[str, Any], _context: ToolContext) -> str:
        key, value = arguments["key"].strip(), arguments["value"]
        fact_type = arguments.get("fact_type") or default_type
        _check(key, value, fact_type)
        try:
            written = await memory.set_fact(key, value, fact_type, overwrite=overwrite)
        except MemoryFailed as error:
            text = f"Error writing memory: {error}"
            raise ToolError(text, told=text) from error
        return f"Remembered: {key} = {value} ({written})"

    return (Tool(spec=_REMEMBER, node=node, run=run),)


def _check(key: str, value: str, fact_type: str) -> None:
    if not key:
        raise ToolError("key is required")
    if not value.strip():
        raise ToolError("value is required")
    if fact_type not in FACT_TYPES:
        raise ToolError(f"unknown fact_type '{fact_type}'")
    if len(key) > MAX_KEY_CHARS:
        raise ToolError(f"key must be at most {MAX_KEY_CHARS} characters")
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise ToolError(f"value must be at most {MAX_VALUE_BYTES} bytes")
