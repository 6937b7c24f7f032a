"""`workflow_create` and `workflow_discover`: an agent builds workflows and finds built ones.

Contract: node-types.md §8.8, §8.9, engine.md §27, §28.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pipelit.engine.definition import NodeDef
from pipelit.engine.discovery import BadRequirements, Requirements, read_requirements
from pipelit.nodes.base import NodeServices, Tool
from pipelit.nodes.json_tools import Acting, json_tool, refused
from pipelit.nodes.tool_limits import clamp, integer, read_tags, text
from pipelit.nodes.tool_schema import tool_spec

MAX_MATCHES = 50
MAX_REQUIREMENTS = 65_536

_CREATE = tool_spec(
    "workflow_create",
    "Create a workflow from YAML, or fork one with patches.",
    {
        "dsl": text("The workflow in YAML"),
        "tags": text("Further tags, separated by commas", ""),
    },
    required=("dsl",),
)
_DISCOVER = tool_spec(
    "workflow_discover",
    "Find workflows that match requirements, with scores and gaps.",
    {
        "requirements": text(
            "JSON object with any of triggers, node_types, tools, tags (lists), description and"
            " model_capability (texts)"
        ),
        "limit": integer("Most matches, 1 to 50", 5),
    },
    required=("requirements",),
)


class WorkflowBuilder(Protocol):
    """Builds workflows for the owner of a workflow."""

    async def create(self, acting: Acting, dsl: str, tags: Sequence[str]) -> Mapping[str, Any]:
        """Compile and store a document; the same call again returns the first workflow.

        Raises:
            Refusal: it does not compile, or the caller's workflow is gone.
        """


class WorkflowFinder(Protocol):
    """Looks at the workflows that the owner of a workflow may call."""

    async def discover(
        self, acting: Acting, requirements: Requirements, limit: int
    ) -> Mapping[str, Any]:
        """Return the best matches, and how many workflows were looked at."""


def workflow_create_tools(
    node: NodeDef, _config: dict[str, Any], _services: NodeServices, *, builder: WorkflowBuilder
) -> tuple[Tool, ...]:
    """Offer `workflow_create`."""

    async def create(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        return await builder.create(acting, arguments["dsl"], read_tags(arguments["tags"]))

    return (json_tool(_CREATE, node, create),)


def workflow_discover_tools(
    node: NodeDef, _config: dict[str, Any], _services: NodeServices, *, finder: WorkflowFinder
) -> tuple[Tool, ...]:
    """Offer `workflow_discover`."""

    async def discover(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        wanted = _read(arguments["requirements"])
        return await finder.discover(acting, wanted, clamp(arguments["limit"], MAX_MATCHES))

    return (json_tool(_DISCOVER, node, discover),)


def _read(written: str) -> Requirements:
    if len(written) > MAX_REQUIREMENTS:
        raise refused(f"requirements must be at most {MAX_REQUIREMENTS} characters")
    try:
        return read_requirements(json.loads(written))
    except BadRequirements as error:
        raise refused(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise refused(f"Invalid JSON: {error}") from error
