"""The workspaces nodes work in: whose they are, where, with which variables.

A workflow works in its owner's workspaces; the default one is everybody's.
Contract: engine.md §29.4.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import Connection

from pipelit.engine.values import to_text
from pipelit.errors import Unavailable
from pipelit.nodes.base import NodeError, config_error
from pipelit.nodes.deep_agent import Place
from pipelit.nodes.sandbox import Workspace
from pipelit.services import visibility
from pipelit.services.agent_lookup import find_workflow_principal
from pipelit.services.directories import WorkspaceDirectories
from pipelit.services.principal import Principal
from pipelit.services.workspaces import DEFAULT, EnvVar
from pipelit.store import Store
from pipelit.store.queries.workspaces import (
    WorkspaceRow,
    find_workspace,
    find_workspace_by_name,
    list_workspaces,
)

MAX_WORKSPACES = 10_000
MIN_HIDDEN = 4
"""Raw values shorter than this are shown: a `1` says nothing and is in every output."""

OpenCredential: TypeAlias = Callable[[int], Awaitable[Mapping[str, Any] | None]]
"""Returns the fields of a credential in clear; None: there is none."""


class SandboxWorkspaces:
    """Implements `pipelit.nodes.sandbox.FindWorkspace`."""

    def __init__(
        self, store: Store, directories: WorkspaceDirectories, open_credential: OpenCredential
    ) -> None:
        self._store = store
        self._directories = directories
        self._open_credential = open_credential

    async def find(self, workflow_id: int, workspace_id: int | None) -> Workspace:
        """Return the workspace for a process of a workflow; None stands for the default one.

        Raises:
            NodeError: `ConfigError`; the workflow's owner has no such workspace, or a variable
                cannot be resolved. `SandboxUnavailable`; its directory cannot be used.
        """
        row = await self._find_row(workflow_id, workspace_id)
        variables: dict[str, str] = {}
        secrets: list[str] = []
        for variable in (EnvVar(**stored) for stored in row.env_vars):
            value = await self._resolve(variable)
            variables[variable.key] = value
            if variable.source == "credential" or len(value) >= MIN_HIDDEN:
                secrets.append(value)
        return Workspace(
            path=row.path, allow_network=row.allow_network, variables=variables, secrets=secrets
        )

    async def find_place(self, workflow_id: int, workspace_id: int | None, root_dir: str) -> Place:
        """Return where the files of a deep agent are.

        Args:
            workflow_id: whose owner's workspaces count.
            workspace_id: the agent's; None stands for the default one.
            root_dir: a directory in any of them instead, absolute or below the directory of all.

        Raises:
            NodeError: as `find`; `ConfigError` for a directory in none of them.
        """
        if not root_dir:
            row = await self._find_row(workflow_id, workspace_id)
            return Place(row.id, row.path)
        path = _normal(self._directories.root / root_dir)
        usable = await self._store.read(partial(_list_usable, workflow_id=workflow_id))
        around = next((row for row in usable if path.is_relative_to(row.path)), None)
        if around is None:
            raise config_error("filesystem_root_dir must be inside the workspaces directory")
        await self._prepare(around)
        return Place(around.id, around.path, path.relative_to(around.path).parts)

    async def _find_row(self, workflow_id: int, workspace_id: int | None) -> WorkspaceRow:
        row = await self._store.read(
            partial(find_workflow_workspace, workflow_id=workflow_id, workspace_id=workspace_id)
        )
        if row is None:
            which = "The default workspace" if workspace_id is None else f"Workspace {workspace_id}"
            raise config_error(f"{which} does not exist")
        await self._prepare(row)
        return row

    async def _prepare(self, row: WorkspaceRow) -> None:
        """Make sure the directory is there, and is what it was when it was allowed."""
        try:
            usable = await self._directories.is_allowed(row.path)
            if usable:
                await self._directories.make(row.path)
                usable = await self._directories.is_real(row.path)
        except Unavailable:
            usable = False
        if not usable:
            raise NodeError(
                f"Sandbox cannot start: the directory of workspace '{row.name}' cannot be used.",
                code="SandboxUnavailable",
                retryable=False,
            )

    async def _resolve(self, variable: EnvVar) -> str:
        if not variable.key or "=" in variable.key or "\0" in variable.key:
            raise config_error(f"Workspace variable '{variable.key}' has no usable name")
        if variable.source == "raw" or variable.credential_id is None:
            return variable.value or ""
        fields = await self._open_credential(variable.credential_id) or {}
        name = variable.credential_field or ""
        if fields.get(name) is None:
            raise config_error(
                f"Workspace variable '{variable.key}': credential {variable.credential_id}"
                f" has no field '{name}'"
            )
        return to_text(fields[name])


def find_workflow_workspace(
    conn: Connection, workflow_id: int, workspace_id: int | None
) -> WorkspaceRow | None:
    """Return a workspace that the nodes of a workflow may use; None stands for the default one."""
    if workspace_id is None:
        return find_workspace_by_name(conn, DEFAULT)
    row = find_workspace(conn, workspace_id)
    owner = find_workflow_principal(conn, workflow_id)
    if row is None or owner is None:
        return None
    return row if _is_usable(owner, row) else None


def _list_usable(conn: Connection, workflow_id: int) -> list[WorkspaceRow]:
    owner = find_workflow_principal(conn, workflow_id)
    found, _ = list_workspaces(conn, owners=None, limit=MAX_WORKSPACES, offset=0)
    return [row for row in found if owner is not None and _is_usable(owner, row)]


def _normal(path: Path) -> Path:
    """Return a path without `..`. Lexically: who opens it follows no link."""
    return Path(os.path.normpath(path))


def _is_usable(owner: Principal, row: WorkspaceRow) -> bool:
    return row.name == DEFAULT or visibility.can_use_workspace(owner, row.owner_id)
