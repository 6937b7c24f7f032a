"""Workflows. Contract: workflows.md."""

from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator, Field

from pipelit.engine.dsl.source import MAX_CHARS
from pipelit.engine.specs import registry
from pipelit.services.canvas import NOT_YOURS, WORKFLOW_NOT_FOUND
from pipelit.services.canvas_views import Workflow, WorkflowDetail
from pipelit.services.workflows import OWN_HANDLER, WorkflowsService, slug_taken
from pipelit.web.call import Call
from pipelit.web.models import (
    BatchKeys,
    FreeObject,
    Int64,
    Integer,
    ListQuery,
    LongText,
    Name,
    RequestModel,
    Slug,
    Tags,
    changes,
    problem,
)
from pipelit.web.responses import Page
from pipelit.web.routes.shown import EDGE, NODE, WORKFLOW
from pipelit.web.routing import Auth, Example, Refuses, Route

_RESERVED = frozenset({"node-types", "validate-dsl", "batch-delete"})


def _not_reserved(slug: str) -> str:
    if slug in _RESERVED:
        raise problem("is reserved")
    return slug


FreeSlug = Annotated[Slug, AfterValidator(_not_reserved)]
Seconds = Annotated[int, Integer(1, 86_400)]


class ChangeWorkflow(RequestModel):
    """Fields of a workflow to change."""

    name: Name = ""
    slug: FreeSlug = ""
    description: LongText = ""
    is_active: bool = True
    is_public: bool = False
    is_default: bool = False
    tags: Tags | None = None
    error_handler_workflow_id: Int64 | None = None
    max_execution_seconds: Seconds | None = None
    input_schema: FreeObject | None = None
    output_schema: FreeObject | None = None


class CreateWorkflow(ChangeWorkflow):
    """A new workflow."""

    name: Name
    slug: FreeSlug


class BatchDelete(RequestModel):
    """Workflows to delete, by slug."""

    slugs: BatchKeys


class DslText(RequestModel):
    """A workflow written in YAML."""

    yaml_str: Annotated[str, Field(min_length=1, max_length=MAX_CHARS)]


class DslValidation(msgspec.Struct, frozen=True, kw_only=True):
    """What a definition is worth. The counts are those of the graph it would build."""

    valid: bool
    errors: list[str]
    warnings: list[str]
    node_count: int
    edge_count: int


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a workflow. Warnings never make it invalid."""

    valid: bool
    errors: list[str]
    warnings: list[str]


async def browse(call: Call[None, ListQuery]) -> Page[Workflow]:
    """List the caller's workflows."""
    items, total = await call.service(WorkflowsService).browse(
        call.principal, limit=call.query.limit, offset=call.query.offset
    )
    return Page(items=items, total=total)


async def create(call: Call[CreateWorkflow]) -> Workflow:
    """Make a workflow."""
    return await call.service(WorkflowsService).create(call.principal, call.body.model_dump())


async def get(call: Call[None]) -> WorkflowDetail:
    """Return a workflow with its nodes and edges."""
    return await call.service(WorkflowsService).get(call.principal, call.path.text("slug"))


async def change(call: Call[ChangeWorkflow]) -> Workflow:
    """Change a workflow."""
    return await call.service(WorkflowsService).change(
        call.principal, call.path.text("slug"), changes(call.body)
    )


async def delete(call: Call[None]) -> None:
    """Delete a workflow."""
    await call.service(WorkflowsService).delete(call.principal, call.path.text("slug"))


async def delete_many(call: Call[BatchDelete]) -> None:
    """Delete several workflows."""
    await call.service(WorkflowsService).delete_many(call.principal, call.body.slugs)


async def validate(call: Call[None]) -> Validation:
    """Check a workflow."""
    report = await call.service(WorkflowsService).validate(call.principal, call.path.text("slug"))
    return Validation(
        valid=report.valid, errors=list(report.errors), warnings=list(report.warnings)
    )


async def validate_dsl(call: Call[DslText]) -> DslValidation:
    """Check a YAML definition."""
    checked = await call.service(WorkflowsService).check_dsl(call.principal, call.body.yaml_str)
    return msgspec.convert(checked, DslValidation, from_attributes=True)


async def node_types(_: Call[None]) -> dict[str, dict[str, Any]]:
    """Describe every component type."""
    return registry()


NO_WORKFLOW = Refuses(404, WORKFLOW_NOT_FOUND, "no such workflow, or not visible")
NOT_CHANGEABLE = Refuses(403, NOT_YOURS, "public, but somebody else's")
_SLUG_TAKEN = Refuses(409, slug_taken("<slug>"), "another workflow has the slug")
_NO_HANDLER = Refuses(404, WORKFLOW_NOT_FOUND, "the error handler is not there or not visible")
_PATH = "/api/v1/workflows/invoice-triage/"
_REPLY_CHAT = msgspec.json.decode(msgspec.json.encode(registry()["reply_chat"]))

ROUTES = (
    Route(
        "GET",
        "/workflows/",
        browse,
        auth=Auth.BEARER,
        section="workflows",
        summary="List workflows.",
        query=ListQuery,
        response=Page[Workflow],
        examples=(
            Example(path="/api/v1/workflows/?limit=1", response={"items": [WORKFLOW], "total": 3}),
        ),
    ),
    Route(
        "POST",
        "/workflows/",
        create,
        auth=Auth.BEARER,
        section="workflows",
        summary="Create a workflow.",
        body=CreateWorkflow,
        status=201,
        response=Workflow,
        refuses=(_NO_HANDLER, _SLUG_TAKEN),
        examples=(
            Example(
                path="/api/v1/workflows/",
                body={
                    "name": "Invoice triage",
                    "slug": "invoice-triage",
                    "tags": ["finance"],
                    "max_execution_seconds": 120,
                },
                status=201,
                response={**WORKFLOW, "node_count": 0, "trigger_count": 0},
            ),
        ),
    ),
    Route(
        "GET",
        "/workflows/node-types/",
        node_types,
        auth=Auth.BEARER,
        section="workflows",
        summary="Describe every component type.",
        description="Keyed by component type. Static for a server version.",
        response=dict[str, dict[str, Any]],
        examples=(
            Example(
                path="/api/v1/workflows/node-types/",
                response={"reply_chat": _REPLY_CHAT},
            ),
        ),
    ),
    Route(
        "POST",
        "/workflows/validate-dsl/",
        validate_dsl,
        auth=Auth.BEARER,
        section="workflows",
        summary="Check a YAML definition without storing it.",
        description="A broken document is a result, not an error.",
        body=DslText,
        response=DslValidation,
        examples=(
            Example(
                path="/api/v1/workflows/validate-dsl/",
                body={
                    "yaml_str": "name: ping\ntrigger: chat\nsteps:\n"
                    "  - id: say\n    type: reply_chat\n    message: pong"
                },
                response={
                    "valid": True,
                    "errors": [],
                    "warnings": [],
                    "node_count": 2,
                    "edge_count": 1,
                },
            ),
        ),
    ),
    Route(
        "POST",
        "/workflows/batch-delete/",
        delete_many,
        auth=Auth.BEARER,
        section="workflows",
        summary="Delete several workflows.",
        description="Slugs that do not exist or may not be deleted are skipped.",
        body=BatchDelete,
        status=204,
        examples=(
            Example(
                path="/api/v1/workflows/batch-delete/",
                body={"slugs": ["invoice-triage"]},
                status=204,
            ),
        ),
    ),
    Route(
        "GET",
        "/workflows/{slug}/",
        get,
        auth=Auth.BEARER,
        section="workflows",
        summary="Get a workflow with its nodes and edges.",
        response=WorkflowDetail,
        refuses=(NO_WORKFLOW,),
        examples=(Example(path=_PATH, response={**WORKFLOW, "nodes": [NODE], "edges": [EDGE]}),),
    ),
    Route(
        "PATCH",
        "/workflows/{slug}/",
        change,
        auth=Auth.BEARER,
        section="workflows",
        summary="Change a workflow.",
        body=ChangeWorkflow,
        response=Workflow,
        refuses=(
            NO_WORKFLOW,
            NOT_CHANGEABLE,
            _NO_HANDLER,
            Refuses(400, OWN_HANDLER, "it would be its own error handler"),
            _SLUG_TAKEN,
        ),
        examples=(
            Example(
                path=_PATH,
                body={"is_public": True},
                response={
                    **WORKFLOW,
                    "is_public": True,
                    "updated_at": "2026-02-03T08:20:11.100200",
                },
            ),
        ),
    ),
    Route(
        "DELETE",
        "/workflows/{slug}/",
        delete,
        auth=Auth.BEARER,
        section="workflows",
        summary="Delete a workflow.",
        description="Its active executions are cancelled; their records stay readable.",
        status=204,
        refuses=(NO_WORKFLOW, NOT_CHANGEABLE),
    ),
    Route(
        "POST",
        "/workflows/{slug}/validate/",
        validate,
        auth=Auth.BEARER,
        section="workflows",
        summary="Validate a workflow.",
        response=Validation,
        refuses=(NO_WORKFLOW,),
        examples=(
            Example(
                path=f"{_PATH}validate/",
                response={"valid": True, "errors": [], "warnings": []},
            ),
        ),
    ),
)
