"""Workspaces over HTTP. Contract: beyond.md §10.

Handlers only translate: the rules are `pipelit.services.workspaces`'s.
"""

from typing import Annotated, Literal

import msgspec
from pydantic import Field

from pipelit.services.workspaces import Done, EnvVar, Workspace, WorkspacesService
from pipelit.web.call import Call
from pipelit.web.models import BatchIds, Int64, ListQuery, RequestModel
from pipelit.web.responses import Page
from pipelit.web.routing import Auth, Example, Refuses, Route

WorkspaceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]

VariableName = Annotated[str, Field(pattern="^[^=]+$")]
"""What the system takes as a name; any other would keep every process from starting."""


class EnvVarModel(RequestModel):
    """A variable: a raw value, or a field of a credential."""

    key: VariableName
    source: Literal["raw", "credential"] = "raw"
    value: str | None = None
    credential_id: Int64 | None = None
    credential_field: str | None = None


class CreateWorkspace(RequestModel):
    """A new workspace; name and path are fixed for ever."""

    name: WorkspaceName
    path: str = ""
    allow_network: bool = False
    env_vars: list[EnvVarModel] = Field(default_factory=list)


class ChangeWorkspace(RequestModel):
    """What to change; null means unchanged. `env_vars` is replaced whole."""

    allow_network: bool | None = None
    env_vars: list[EnvVarModel] | None = None


class DeleteWorkspaces(RequestModel):
    """Ids to delete."""

    ids: BatchIds


async def browse(call: Call[None, ListQuery]) -> Page[Workspace]:
    """List workspaces."""
    items, total = await call.service(WorkspacesService).browse(
        call.principal, limit=call.query.limit, offset=call.query.offset
    )
    return Page(items=items, total=total)


async def create(call: Call[CreateWorkspace]) -> Workspace:
    """Make a workspace."""
    body = call.body
    return await call.service(WorkspacesService).create(
        call.principal,
        name=body.name,
        path=body.path if "path" in body.model_fields_set else None,
        allow_network=body.allow_network,
        env_vars=_env_vars(body.env_vars),
    )


async def get(call: Call) -> Workspace:
    """Return one workspace."""
    return await call.service(WorkspacesService).get(
        call.principal, call.path.number("workspace_id")
    )


async def change(call: Call[ChangeWorkspace]) -> Workspace:
    """Change network access and variables."""
    env_vars = call.body.env_vars
    return await call.service(WorkspacesService).change(
        call.principal,
        call.path.number("workspace_id"),
        allow_network=call.body.allow_network,
        env_vars=None if env_vars is None else _env_vars(env_vars),
    )


async def delete(call: Call) -> None:
    """Delete one workspace."""
    await call.service(WorkspacesService).delete(call.principal, call.path.number("workspace_id"))


async def delete_many(call: Call[DeleteWorkspaces]) -> None:
    """Delete those of the ids that the caller may delete."""
    await call.service(WorkspacesService).delete_many(call.principal, call.body.ids)


async def reset(call: Call) -> Done:
    """Empty a workspace's directory."""
    return await call.service(WorkspacesService).reset(
        call.principal, call.path.number("workspace_id")
    )


async def reset_rootfs(call: Call) -> Done:
    """Delete a workspace's root filesystem."""
    return await call.service(WorkspacesService).reset_rootfs(
        call.principal, call.path.number("workspace_id")
    )


def _env_vars(models: list[EnvVarModel]) -> list[EnvVar]:
    return [msgspec.convert(model, EnvVar, from_attributes=True) for model in models]


_NOT_FOUND = Refuses(404, "Workspace not found.", "no such workspace, or somebody else's")
_NO_CREDENTIAL = Refuses(404, "Credential not found.", "a variable names one that is not there")
_ADMIN_ONLY = Refuses(403, "Admin access required.", "`allow_network: true` by somebody else")
_WRONG_PATH = Refuses(
    400,
    "Workspace path must be under <data dir>/workspaces/",
    "the path is not absolute, or leads elsewhere",
)

_SHOWN = {
    "id": 2,
    "name": "reports",
    "path": "/var/lib/pipelit/workspaces/reports",
    "allow_network": False,
    "env_vars": [
        {
            "key": "REGION",
            "source": "raw",
            "value": "eu",
            "credential_id": None,
            "credential_field": None,
        }
    ],
    "created_at": "2026-02-03T11:00:00",
}
_PATH = "/api/v1/workspaces/2/"

ROUTES = (
    Route(
        "GET",
        "/workspaces/",
        browse,
        auth=Auth.BEARER,
        section="workspaces",
        summary="List the caller's workspaces; an admin sees all.",
        query=ListQuery,
        response=Page[Workspace],
        examples=(Example(path="/api/v1/workspaces/", response={"items": [_SHOWN], "total": 1}),),
    ),
    Route(
        "POST",
        "/workspaces/",
        create,
        auth=Auth.BEARER,
        section="workspaces",
        summary="Make a workspace and its directory.",
        body=CreateWorkspace,
        status=201,
        response=Workspace,
        refuses=(
            _WRONG_PATH,
            _ADMIN_ONLY,
            _NO_CREDENTIAL,
            Refuses(409, "Workspace with this name already exists.", "anybody's has the name"),
            Refuses(
                409,
                "Workspace path belongs to another workspace.",
                "it is, holds or lies in another workspace's directory",
            ),
        ),
        examples=(
            Example(
                path="/api/v1/workspaces/",
                body={"name": "reports", "env_vars": [{"key": "REGION", "value": "eu"}]},
                status=201,
                response=_SHOWN,
            ),
        ),
    ),
    Route(
        "POST",
        "/workspaces/batch-delete/",
        delete_many,
        auth=Auth.BEARER,
        section="workspaces",
        summary="Delete several workspaces; `default` is skipped, files stay.",
        body=DeleteWorkspaces,
        status=204,
        examples=(Example(path="/api/v1/workspaces/batch-delete/", body={"ids": [2]}, status=204),),
    ),
    Route(
        "GET",
        "/workspaces/{workspace_id:int}/",
        get,
        auth=Auth.BEARER,
        section="workspaces",
        summary="Return one workspace, raw values in clear.",
        response=Workspace,
        refuses=(_NOT_FOUND,),
        examples=(Example(path=_PATH, response=_SHOWN),),
    ),
    Route(
        "PATCH",
        "/workspaces/{workspace_id:int}/",
        change,
        auth=Auth.BEARER,
        section="workspaces",
        summary="Change network access and variables; null means unchanged.",
        body=ChangeWorkspace,
        response=Workspace,
        refuses=(_NOT_FOUND, _ADMIN_ONLY, _NO_CREDENTIAL),
        examples=(Example(path=_PATH, body={"env_vars": []}, response={**_SHOWN, "env_vars": []}),),
    ),
    Route(
        "DELETE",
        "/workspaces/{workspace_id:int}/",
        delete,
        auth=Auth.BEARER,
        section="workspaces",
        summary="Delete a workspace; its files stay.",
        status=204,
        refuses=(
            _NOT_FOUND,
            Refuses(403, "Cannot delete the default workspace.", "its name is `default`"),
        ),
        examples=(Example(path=_PATH, status=204),),
    ),
    Route(
        "POST",
        "/workspaces/{workspace_id:int}/reset/",
        reset,
        auth=Auth.BEARER,
        section="workspaces",
        summary="Delete everything in a workspace's directory.",
        response=Done,
        refuses=(_NOT_FOUND, _WRONG_PATH),
        examples=(
            Example(
                path=f"{_PATH}reset/",
                response={"ok": True, "message": "Workspace 'reports' has been reset."},
            ),
        ),
    ),
    Route(
        "POST",
        "/workspaces/{workspace_id:int}/reset-rootfs/",
        reset_rootfs,
        auth=Auth.BEARER,
        section="workspaces",
        summary="Delete the root filesystem of a workspace's sandbox; it is made again.",
        response=Done,
        refuses=(_NOT_FOUND, _WRONG_PATH),
        examples=(
            Example(
                path=f"{_PATH}reset-rootfs/",
                response={
                    "ok": True,
                    "message": "Rootfs cleared for workspace 'reports'. "
                    "Will be re-created on next execution.",
                },
            ),
        ),
    ),
)
