"""Platform tools: what they know of their caller, and how they answer in JSON.

What they do for the owner of the workflow lives behind ports; a port refuses with a `Refusal`.

Contract: node-types.md §1, §8.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import msgspec
import structlog

from pipelit.engine.definition import NodeDef
from pipelit.errors import Refusal
from pipelit.llm.types import ToolSpec
from pipelit.nodes.base import Tool, ToolContext, ToolError

MAX_KEY_CHARS = 300

log = structlog.get_logger(__name__)


class Acting(msgspec.Struct, frozen=True, kw_only=True):
    """For whom a tool acts: the owner of the workflow it is in. `key` names this one call."""

    workflow_id: int
    workflow_slug: str
    agent_id: str
    tool_id: str
    key: str


Work: TypeAlias = Callable[[Mapping[str, Any], Acting], Awaitable[Mapping[str, Any]]]
"""(arguments, caller) -> the fields of the answer beside `success`."""

dump = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))


def refused(error: str) -> ToolError:
    """Return the failure of a JSON tool."""
    return ToolError(error, told=dump({"success": False, "error": error}))


def json_tool(spec: ToolSpec, node: NodeDef, work: Work) -> Tool:
    """Return a tool whose answer is `{"success": true, …}` and whose failure is JSON too."""

    async def run(arguments: dict[str, Any], context: ToolContext) -> str:
        try:
            return dump({"success": True, **await work(arguments, acting(node, context))})
        except Refusal as error:
            raise refused(error.detail.removesuffix(".")) from error
        except ToolError:
            raise
        except Exception as error:
            # The model reads that the tool failed; the operator reads why. Words of a database
            # could name hosts and files.
            log.exception("platform tool failed", tool=spec.name)
            raise refused(f"internal error ({type(error).__name__})") from error

    return Tool(spec=spec, node=node, run=run)


def acting(node: NodeDef, context: ToolContext) -> Acting:
    """Return for whom a call of a tool node acts."""
    key = context.idempotency_key
    if len(key) > MAX_KEY_CHARS:
        key = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
    return Acting(
        workflow_id=context.caller.workflow_id,
        workflow_slug=context.caller.workflow_slug,
        agent_id=context.caller.node_id,
        tool_id=node.node_id,
        key=key,
    )
