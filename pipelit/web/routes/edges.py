"""Edges of a workflow. Contract: edges.md."""

from typing import Annotated

from pydantic import Field

from pipelit.engine.definition import EdgeDef, EdgeType
from pipelit.engine.edges import ALREADY_EXISTS, EdgeLabel
from pipelit.services.edges import EDGE_NOT_FOUND, LIMIT_REACHED, EdgesService
from pipelit.web.call import Call
from pipelit.web.models import FreeObject, Int64, RequestModel, Text, changes
from pipelit.web.routes.shown import EDGE
from pipelit.web.routes.workflows import NO_WORKFLOW, NOT_CHANGEABLE
from pipelit.web.routing import Auth, Example, Refuses, Route


class ChangeEdge(RequestModel):
    """Fields of an edge to change."""

    source_node_id: Text = ""
    target_node_id: Text = ""
    edge_type: EdgeType = "direct"
    edge_label: EdgeLabel = ""
    condition_mapping: FreeObject | None = None
    condition_value: Annotated[str, Field(max_length=100)] = ""
    priority: Int64 = 0


class CreateEdge(ChangeEdge):
    """A new edge."""

    source_node_id: Text


async def browse(call: Call[None]) -> list[EdgeDef]:
    """List the edges of a workflow."""
    return await call.service(EdgesService).browse(call.principal, call.path.text("slug"))


async def create(call: Call[CreateEdge]) -> EdgeDef:
    """Draw an edge."""
    return await call.service(EdgesService).create(
        call.principal, call.path.text("slug"), changes(call.body)
    )


async def get(call: Call[None]) -> EdgeDef:
    """Return one edge."""
    return await call.service(EdgesService).get(
        call.principal, call.path.text("slug"), call.path.number("edge_id")
    )


async def change(call: Call[ChangeEdge]) -> EdgeDef:
    """Change an edge."""
    return await call.service(EdgesService).change(
        call.principal, call.path.text("slug"), call.path.number("edge_id"), changes(call.body)
    )


async def delete(call: Call[None]) -> None:
    """Take an edge away."""
    await call.service(EdgesService).delete(
        call.principal, call.path.text("slug"), call.path.number("edge_id")
    )


NO_EDGE = Refuses(404, EDGE_NOT_FOUND, "no such edge in the workflow")
_BROKEN = (
    Refuses(422, "Conditional edges require a non-empty condition_value", "it has none"),
    Refuses(422, "Conditional edges require a non-empty target_node_id", "it has none"),
    Refuses(422, "Conditional edges can only originate from 'switch' nodes", "its source is none"),
)
_TWICE = Refuses(409, ALREADY_EXISTS, "same source, target, type, label and condition value")
_PATH = "/api/v1/workflows/invoice-triage/edges/"

ROUTES = (
    Route(
        "GET",
        "/workflows/{slug}/edges/",
        browse,
        auth=Auth.BEARER,
        section="edges",
        summary="List the edges of a workflow.",
        response=list[EdgeDef],
        refuses=(NO_WORKFLOW,),
        examples=(Example(path=_PATH, response=[EDGE]),),
    ),
    Route(
        "POST",
        "/workflows/{slug}/edges/",
        create,
        auth=Auth.BEARER,
        section="edges",
        summary="Create an edge.",
        body=CreateEdge,
        status=201,
        response=EdgeDef,
        refuses=(
            NO_WORKFLOW,
            NOT_CHANGEABLE,
            *_BROKEN,
            _TWICE,
            Refuses(409, LIMIT_REACHED, "the workflow has 5000 edges"),
        ),
        examples=(
            Example(
                path=_PATH,
                body={
                    "source_node_id": "model_main",
                    "target_node_id": "agent_1",
                    "edge_label": "llm",
                },
                status=201,
                response=EDGE,
            ),
        ),
    ),
    Route(
        "GET",
        "/workflows/{slug}/edges/{edge_id:int}/",
        get,
        auth=Auth.BEARER,
        section="edges",
        summary="Get an edge.",
        response=EdgeDef,
        refuses=(NO_WORKFLOW, NO_EDGE),
        examples=(Example(path=f"{_PATH}12/", response=EDGE),),
    ),
    Route(
        "PATCH",
        "/workflows/{slug}/edges/{edge_id:int}/",
        change,
        auth=Auth.BEARER,
        section="edges",
        summary="Change an edge.",
        body=ChangeEdge,
        response=EdgeDef,
        refuses=(NO_WORKFLOW, NO_EDGE, NOT_CHANGEABLE, *_BROKEN, _TWICE),
        examples=(
            Example(path=f"{_PATH}12/", body={"priority": 1}, response={**EDGE, "priority": 1}),
        ),
    ),
    Route(
        "DELETE",
        "/workflows/{slug}/edges/{edge_id:int}/",
        delete,
        auth=Auth.BEARER,
        section="edges",
        summary="Delete an edge.",
        status=204,
        refuses=(NO_WORKFLOW, NO_EDGE, NOT_CHANGEABLE),
    ),
)
