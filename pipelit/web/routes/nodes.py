"""Nodes of a workflow. Contract: nodes.md."""

from math import floor
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from pipelit.engine.specs import COMPONENT_TYPES
from pipelit.services.canvas_views import Node
from pipelit.services.node_rules import CREDENTIAL_NOT_FOUND, NOT_AN_LLM
from pipelit.services.nodes import LIMIT_REACHED, NODE_NOT_FOUND, NodesService, id_taken
from pipelit.web.call import Call
from pipelit.web.models import (
    FreeObject,
    Int64,
    Integer,
    LongText,
    Number,
    RequestModel,
    changes,
    problem,
)
from pipelit.web.routes.shown import NODE
from pipelit.web.routes.workflows import NO_WORKFLOW, NOT_CHANGEABLE
from pipelit.web.routing import Auth, Example, Refuses, Route

_RESERVED = frozenset({"__start__", "__end__"})


def _not_reserved(node_id: str) -> str:
    if node_id in _RESERVED:
        raise problem("is reserved")
    return node_id


def _known(component_type: str) -> str:
    if component_type not in COMPONENT_TYPES:
        raise problem(f"must be one of: {', '.join(COMPONENT_TYPES)}")
    return component_type


def _round(value: object) -> object:
    return floor(value + 0.5) if type(value) is float else value


NodeId = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,254}$"), AfterValidator(_not_reserved)
]
ComponentType = Annotated[
    str, AfterValidator(_known), Field(json_schema_extra={"enum": [*COMPONENT_TYPES]})
]
ShortText = Annotated[str, Field(max_length=255)]
Position = Annotated[int, Integer(), BeforeValidator(_round)]
"""A coordinate on the canvas; a fraction is rounded to the nearest integer."""
Positive = Annotated[int, Integer(1)]
NotNegative = Annotated[int, Integer(0)]


class Config(RequestModel):
    """Settings of a node. Fields its type does not keep are dropped silently."""

    system_prompt: LongText = ""
    extra_config: FreeObject = Field(default_factory=dict)
    llm_credential_id: Int64 | None = None
    model_name: ShortText = ""
    temperature: Number | None = None
    max_tokens: Positive | None = None
    frequency_penalty: Number | None = None
    presence_penalty: Number | None = None
    top_p: Number | None = None
    timeout: Positive | None = None
    max_retries: NotNegative | None = None
    response_format: FreeObject | None = None
    credential_id: Int64 | None = None
    is_active: bool = True
    priority: Int64 = 0
    trigger_config: FreeObject = Field(default_factory=dict)


class ChangeNode(RequestModel):
    """Fields of a node to change. A `config` is merged key by key."""

    node_id: NodeId = ""
    label: ShortText | None = None
    component_type: ComponentType = ""
    is_entry_point: bool = False
    interrupt_before: bool = False
    interrupt_after: bool = False
    position_x: Position = 0
    position_y: Position = 0
    config: Config = Config()
    subworkflow_id: Int64 | None = None
    code_block_id: Int64 | None = None


class CreateNode(ChangeNode):
    """A new node. Without a `node_id` it gets one made of its type."""

    node_id: NodeId | None = None  # type: ignore[assignment]  # only here null asks for an id
    component_type: ComponentType


async def browse(call: Call[None]) -> list[Node]:
    """List the nodes of a workflow."""
    return await call.service(NodesService).browse(call.principal, call.path.text("slug"))


async def create(call: Call[CreateNode]) -> Node:
    """Put a node on the canvas."""
    return await call.service(NodesService).create(
        call.principal, call.path.text("slug"), _sent(call.body)
    )


async def get(call: Call[None]) -> Node:
    """Return one node."""
    return await call.service(NodesService).get(
        call.principal, call.path.text("slug"), call.path.text("node_id")
    )


async def change(call: Call[ChangeNode]) -> Node:
    """Change a node."""
    return await call.service(NodesService).change(
        call.principal, call.path.text("slug"), call.path.text("node_id"), _sent(call.body)
    )


async def delete(call: Call[None]) -> None:
    """Take a node off the canvas."""
    await call.service(NodesService).delete(
        call.principal, call.path.text("slug"), call.path.text("node_id")
    )


def _sent(body: ChangeNode) -> dict[str, Any]:
    """Return the fields the client sent, of a config only its sent keys."""
    fields = changes(body)
    if "config" in fields:
        fields["config"] = changes(body.config)
    return fields


NO_NODE = Refuses(404, NODE_NOT_FOUND, "no such node in the workflow")
_TAKEN = Refuses(409, id_taken("<node_id>"), "another node of the workflow has the id")
_LINKS = (
    Refuses(404, CREDENTIAL_NOT_FOUND, "a credential of the config is not there"),
    Refuses(400, NOT_AN_LLM, "the credential of an ai_model is of another type"),
)
_PATH = "/api/v1/workflows/invoice-triage/nodes/"

ROUTES = (
    Route(
        "GET",
        "/workflows/{slug}/nodes/",
        browse,
        auth=Auth.BEARER,
        section="nodes",
        summary="List the nodes of a workflow.",
        response=list[Node],
        refuses=(NO_WORKFLOW,),
        examples=(Example(path=_PATH, response=[NODE]),),
    ),
    Route(
        "POST",
        "/workflows/{slug}/nodes/",
        create,
        auth=Auth.BEARER,
        section="nodes",
        summary="Create a node.",
        body=CreateNode,
        status=201,
        response=Node,
        refuses=(
            NO_WORKFLOW,
            NOT_CHANGEABLE,
            *_LINKS,
            _TAKEN,
            Refuses(409, LIMIT_REACHED, "the workflow has 1000 nodes"),
        ),
        examples=(
            Example(
                path=_PATH,
                body={
                    "node_id": "agent_1",
                    "component_type": "agent",
                    "position_x": 320,
                    "config": {"system_prompt": "Be brief."},
                },
                status=201,
                response=NODE,
            ),
        ),
    ),
    Route(
        "GET",
        "/workflows/{slug}/nodes/{node_id}/",
        get,
        auth=Auth.BEARER,
        section="nodes",
        summary="Get a node.",
        response=Node,
        refuses=(NO_WORKFLOW, NO_NODE),
        examples=(Example(path=f"{_PATH}agent_1/", response=NODE),),
    ),
    Route(
        "PATCH",
        "/workflows/{slug}/nodes/{node_id}/",
        change,
        auth=Auth.BEARER,
        section="nodes",
        summary="Change a node.",
        description="A config is merged key by key. Edges and schedules follow a new node_id.",
        body=ChangeNode,
        response=Node,
        refuses=(NO_WORKFLOW, NO_NODE, NOT_CHANGEABLE, *_LINKS, _TAKEN),
        examples=(
            Example(
                path=f"{_PATH}agent_1/",
                body={"label": "Triage"},
                response={**NODE, "label": "Triage", "updated_at": "2026-02-03T08:17:40.310000"},
            ),
        ),
    ),
    Route(
        "DELETE",
        "/workflows/{slug}/nodes/{node_id}/",
        delete,
        auth=Auth.BEARER,
        section="nodes",
        summary="Delete a node and its edges.",
        status=204,
        refuses=(NO_WORKFLOW, NO_NODE, NOT_CHANGEABLE),
    ),
)
