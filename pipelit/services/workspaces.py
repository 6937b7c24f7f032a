"""Workspaces: each belongs to a user, admins see all. Contract: beyond.md §10."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Literal

import msgspec
import trio
from sqlalchemy import Connection

from pipelit.clock import Clock
from pipelit.errors import BadRequest, Conflict, Forbidden, NotFound
from pipelit.services import visibility
from pipelit.services.directories import WorkspaceDirectories
from pipelit.services.principal import Principal
from pipelit.store import Store
from pipelit.store.queries import workspaces as queries
from pipelit.store.queries.credentials import find_credential
from pipelit.store.queries.workspaces import WorkspaceRow

DEFAULT = "default"
NOT_FOUND = "Workspace not found."
NAME_TAKEN = "Workspace with this name already exists."
PATH_TAKEN = "Workspace path belongs to another workspace."
WRONG_PATH = "Workspace path must be under <data dir>/workspaces/"
DEFAULT_STAYS = "Cannot delete the default workspace."
ADMIN_ONLY = "Admin access required."
CREDENTIAL_NOT_FOUND = "Credential not found."


class EnvVar(msgspec.Struct, frozen=True, kw_only=True):
    """A variable of the processes of a workspace: a raw value, or a field of a credential."""

    key: str
    source: Literal["raw", "credential"] = "raw"
    value: str | None = None
    credential_id: int | None = None
    credential_field: str | None = None


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace as its owner and admins see it, raw values in clear."""

    id: int
    name: str
    path: str
    allow_network: bool
    env_vars: list[EnvVar]
    created_at: datetime


class Done(msgspec.Struct, frozen=True):
    """A directory was cleaned."""

    ok: bool
    message: str


class WorkspacesService:
    """What the contract's workspaces section lets people do."""

    def __init__(self, store: Store, clock: Clock, directories: WorkspaceDirectories) -> None:
        self._store = store
        self._clock = clock
        self._directories = directories
        # One creation at a time: two new directories must not lie in each other.
        self._turn = trio.Lock()

    async def browse(
        self, principal: Principal, *, limit: int, offset: int
    ) -> tuple[Sequence[Workspace], int]:
        """Return a page of the caller's workspaces (an admin's: all), and how many there are."""
        owners = visibility.owners_in_scope(principal)
        query = partial(queries.list_workspaces, owners=owners, limit=limit, offset=offset)
        rows, total = await self._store.read(query)
        return [_show(row) for row in rows], total

    async def get(self, principal: Principal, workspace_id: int) -> Workspace:
        """Return one workspace.

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        return _show(await self._load(principal, workspace_id))

    async def create(
        self,
        principal: Principal,
        *,
        name: str,
        path: str | None,
        allow_network: bool,
        env_vars: Sequence[EnvVar],
    ) -> Workspace:
        """Make a workspace with its directory.

        Args:
            path: absolute; None stands for a directory of the same name.

        Raises:
            Forbidden: somebody other than an admin asks for the network.
            NotFound: a credential is not there.
            Conflict: the name is taken, or the directory is another workspace's.
            BadRequest: the directory is not under the one of all workspaces.
        """
        _require_network(principal, allow_network)
        path = str(self._directories.root / name) if path is None else path
        async with self._turn:
            await self._check_new(name, path, env_vars)
            await self._directories.make(path)
            now = self._clock.now()

            def create(conn: Connection) -> WorkspaceRow:
                workspace_id = queries.insert_workspace(
                    conn,
                    owner_id=principal.user_id,
                    name=name,
                    path=path,
                    created_at=now,
                    allow_network=allow_network,
                    env_vars=_store(env_vars),
                )
                return _get(conn, principal, workspace_id)

            try:
                return _show(await self._store.write(create))
            except queries.NameTaken as error:
                raise Conflict(NAME_TAKEN) from error

    async def change(
        self,
        principal: Principal,
        workspace_id: int,
        *,
        allow_network: bool | None,
        env_vars: Sequence[EnvVar] | None,
    ) -> Workspace:
        """Change network access or variables; None means unchanged.

        Raises:
            NotFound: the workspace as in `get`; a credential.
            Forbidden: somebody other than an admin asks for the network.
        """
        values: dict[str, Any] = {}
        if allow_network is not None:
            values["allow_network"] = allow_network
        if env_vars is not None:
            values["env_vars"] = _store(env_vars)

        def change(conn: Connection) -> WorkspaceRow:
            row = _get(conn, principal, workspace_id)
            _require_network(principal, bool(allow_network))
            _check_credentials(conn, env_vars or ())
            if values:
                queries.update_workspace(conn, row.id, values)
            return _get(conn, principal, workspace_id)

        return _show(await self._store.write(change))

    async def delete(self, principal: Principal, workspace_id: int) -> None:
        """Delete a workspace; its files stay.

        Raises:
            NotFound: as `get`.
            Forbidden: it is the default one.
        """

        def delete(conn: Connection) -> None:
            if _get(conn, principal, workspace_id).name == DEFAULT:
                raise Forbidden(DEFAULT_STAYS)
            queries.delete_workspaces(conn, [workspace_id], owners=None, but=DEFAULT)

        await self._store.write(delete)

    async def delete_many(self, principal: Principal, ids: Collection[int]) -> None:
        """Delete those of *ids* that the caller may delete; the default one is skipped."""
        owners = visibility.owners_in_scope(principal)
        await self._store.write(
            partial(queries.delete_workspaces, ids=ids, owners=owners, but=DEFAULT)
        )

    async def reset(self, principal: Principal, workspace_id: int) -> Done:
        """Delete everything in the directory of a workspace.

        Raises:
            NotFound: as `get`.
            BadRequest: its directory leads out of the one of all workspaces by now.
        """
        row = await self._load(principal, workspace_id)
        await self._require_allowed(row.path)
        await self._directories.empty(row.path)
        return Done(ok=True, message=f"Workspace '{row.name}' has been reset.")

    async def reset_rootfs(self, principal: Principal, workspace_id: int) -> Done:
        """Delete the root filesystem of a workspace's sandbox.

        Raises:
            NotFound: as `get`.
            BadRequest: as `reset`.
        """
        row = await self._load(principal, workspace_id)
        await self._require_allowed(row.path)
        await self._directories.drop_rootfs(row.path)
        message = (
            f"Rootfs cleared for workspace '{row.name}'. Will be re-created on next execution."
        )
        return Done(ok=True, message=message)

    async def _check_new(self, name: str, path: str, env_vars: Sequence[EnvVar]) -> None:
        def look(conn: Connection) -> Sequence[str]:
            _check_credentials(conn, env_vars)
            if queries.find_workspace_by_name(conn, name) is not None:
                raise Conflict(NAME_TAKEN)
            return queries.list_paths(conn)

        paths = await self._store.read(look)
        await self._require_allowed(path)
        if await self._directories.overlaps(path, paths):
            raise Conflict(PATH_TAKEN)

    async def _require_allowed(self, path: str) -> None:
        if not await self._directories.is_allowed(path):
            raise BadRequest(WRONG_PATH)

    async def _load(self, principal: Principal, workspace_id: int) -> WorkspaceRow:
        return await self._store.read(partial(_get, principal=principal, workspace_id=workspace_id))


def _get(conn: Connection, principal: Principal, workspace_id: int) -> WorkspaceRow:
    row = queries.find_workspace(conn, workspace_id)
    if row is None or not visibility.can_use_workspace(principal, row.owner_id):
        raise NotFound(NOT_FOUND)
    return row


def _require_network(principal: Principal, allow_network: bool) -> None:
    if allow_network and not principal.is_admin:
        raise Forbidden(ADMIN_ONLY)


def _check_credentials(conn: Connection, env_vars: Sequence[EnvVar]) -> None:
    named = {variable.credential_id for variable in env_vars}
    for credential_id in named:
        if credential_id is not None and find_credential(conn, credential_id) is None:
            raise NotFound(CREDENTIAL_NOT_FOUND)


def _store(env_vars: Sequence[EnvVar]) -> list[Mapping[str, Any]]:
    return [msgspec.structs.asdict(variable) for variable in env_vars]


def _show(row: WorkspaceRow) -> Workspace:
    return Workspace(
        id=row.id,
        name=row.name,
        path=row.path,
        allow_network=row.allow_network,
        env_vars=[EnvVar(**variable) for variable in row.env_vars],
        created_at=row.created_at,
    )
