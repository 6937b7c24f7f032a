"""Credentials: kept encrypted, shown masked, tried out, handed to the engine. credentials.md.

A clear secret exists only inside a call here and in the `ProviderSpec` the engine asked for.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Any, cast

import msgspec
import trio
from sqlalchemy import Connection

from pipelit.clock import Clock
from pipelit.errors import Forbidden, Invalid, NotFound, Unavailable
from pipelit.llm.types import ProviderSpec
from pipelit.services import visibility
from pipelit.services.credential_detail import (
    FIELDS,
    CredentialType,
    Secrecy,
    Values,
    build_values,
    find_problems,
    merge,
    merge_foreign,
    show,
)
from pipelit.services.gateway import GatewaySync
from pipelit.services.model_lists import ModelLists
from pipelit.services.principal import Principal
from pipelit.store import Store
from pipelit.store.queries import credentials as queries
from pipelit.store.queries.credentials import CredentialRow, NewCredential, StoredDetail
from pipelit.store.secrets import Secrets

_MAX_CREDENTIALS = 1000

NOT_FOUND = "Credential not found."
NOT_AN_LLM = "LLM credential not found."
NOT_A_GATEWAY = "Gateway credential not found."
NOT_YOURS = "Only the creator or an admin can modify this credential."

TAKE_BACK_PATIENCE = 5.0
_ATTEMPTS = 10  # changes of one credential that may get in the way of another

ProviderTest = Callable[[ProviderSpec], Awaitable[str]]
"""Tries a provider; returns what is wrong, empty if nothing. Has its own deadline."""

ModelListing = Callable[[ProviderSpec], Awaitable[Sequence[str]]]
"""Returns the ids of a provider's models, sorted, empty on any failure. Has its own deadline."""


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A credential as everybody may see it."""

    id: int
    name: str
    credential_type: CredentialType
    detail: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class CredentialTest(msgspec.Struct, frozen=True):
    """Whether a provider takes the credential. `error` is empty when it does."""

    ok: bool
    error: str


class CredentialModel(msgspec.Struct, frozen=True):
    """A model that a provider offers."""

    id: str
    name: str


class NoProvider(Enum):
    """Why there is no provider behind a credential id."""

    MISSING = "missing"
    NOT_LLM = "not_llm"


class CredentialsService:
    """What the contract's credentials section lets people do, and what the engine may take.

    Everybody sees, uses, creates and tries all; changing and deleting is for creator and admin.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        secrets: Secrets,
        *,
        test_provider: ProviderTest,
        list_models: ModelListing,
        gateway: GatewaySync,
        model_lists: ModelLists | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._secrets = secrets
        self._test_provider = test_provider
        self._list_models = list_models
        self._gateway = gateway
        self._model_lists = model_lists or ModelLists()

    async def browse(self, *, limit: int, offset: int) -> tuple[Sequence[Credential], int]:
        """Return a page of all credentials, oldest first, and how many there are."""

        # Masking needs decrypting: in the reader's thread, a page may hold a thousand.
        def browse(conn: Connection) -> tuple[Sequence[Credential], int]:
            rows, total = queries.list_credentials(conn, limit=limit, offset=offset)
            return [self._view(row) for row in rows], total

        return await self._store.read(browse)

    async def get(self, credential_id: int) -> Credential:
        """Return one credential.

        Raises:
            NotFound: there is none.
        """
        return self._view(await self._load(credential_id))

    async def create(
        self,
        principal: Principal,
        *,
        name: str,
        credential_type: CredentialType,
        detail: Mapping[str, Any],
    ) -> Credential:
        """Store a new credential of *principal*.

        Args:
            detail: fields of the type, already free of `find_problems`.

        Raises:
            BadGateway: the message gateway did not take it; nothing is stored.
        """
        values = build_values(credential_type, detail, name=name)
        new = NewCredential(
            created_by_id=principal.user_id,
            name=name,
            credential_type=credential_type,
            detail=self._seal(credential_type, values),
            created_at=self._clock.now(),
        )
        await self._gateway.register(credential_type, values)
        try:
            created = await self._store.write(partial(queries.insert_credential, new=new))
        except BaseException:
            # The gateway must not keep what is not stored, whyever that is.
            with trio.move_on_after(TAKE_BACK_PATIENCE, shield=True):
                await self._gateway.take_back(credential_type, values)
            raise
        return Credential(
            id=created,
            name=name,
            credential_type=credential_type,
            detail=show(credential_type, values),
            created_at=new.created_at,
            updated_at=new.created_at,
        )

    async def change(
        self,
        principal: Principal,
        credential_id: int,
        *,
        name: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> Credential:
        """Change the name, some fields, or nothing; None and empty mean unchanged.

        Raises:
            NotFound: there is no such credential.
            Forbidden: *principal* is neither its creator nor an admin.
            Invalid: a field of *detail* breaks the rules of the type.
            BadGateway: the message gateway did not take it; nothing is changed.
        """
        for _ in range(_ATTEMPTS):
            old = await self._load(credential_id)
            self._require_change(principal, old)
            _require_valid(old, detail or {})
            if name is None and not detail:
                return self._view(old)
            values = self._merged(principal, old, detail or {})
            await self._gateway.change(_kind(old), values, detail or {})
            new = self._replaced(old, name=name, values=values)
            if await self._store.write(partial(queries.replace_credential, old=old, new=new)):
                return self._view(new)
        raise Unavailable("Storage is not available.")

    async def delete(self, principal: Principal, credential_id: int) -> None:
        """Delete a credential; nodes that use it lose the reference.

        Raises:
            NotFound: there is no such credential.
            Forbidden: *principal* is neither its creator nor an admin.
            BadGateway: the message gateway did not remove it; nothing is deleted.
        """
        row = await self._load(credential_id)
        self._require_change(principal, row)
        await self._gateway.forget(_kind(row), self._open(row))
        if not await self._delete(principal, [credential_id]):
            raise NotFound(NOT_FOUND)

    async def delete_many(self, principal: Principal, ids: Collection[int]) -> None:
        """Delete those of *ids* that exist and that *principal* may delete, in one transaction.

        Raises:
            BadGateway: the message gateway did not remove some; nothing is deleted.
        """
        if not ids:
            return
        find = partial(
            queries.find_gateway_ids, ids=ids, created_by=visibility.owners_in_scope(principal)
        )
        await self._gateway.forget_all(await self._store.read(find))
        await self._delete(principal, ids)

    async def set_active(
        self, principal: Principal, credential_id: int, *, active: bool
    ) -> dict[str, Any]:
        """Activate or deactivate a credential at the message gateway; return its answer.

        Raises:
            NotFound: no such credential, or not of type `gateway`.
            Forbidden: *principal* is neither its creator nor an admin.
            BadGateway: the gateway refused, or there is none.
        """
        find = partial(queries.find_credential, credential_id=credential_id)
        row = await self._store.read(find)
        if row is None or row.credential_type != "gateway":
            raise NotFound(NOT_A_GATEWAY)
        self._require_change(principal, row)
        gateway_id = self._open(row)["gateway_credential_id"]
        return await self._gateway.set_active(gateway_id, active=active)

    async def test(self, credential_id: int) -> CredentialTest:
        """Call the provider once and say what came of it. Nothing is stored.

        Raises:
            NotFound: no such credential, or not of type `llm`.
        """
        error = await self._test_provider(await self._require_provider(credential_id))
        return CredentialTest(ok=not error, error=error)

    async def list_models(self, credential_id: int) -> Sequence[CredentialModel]:
        """Ask the provider for its models; empty when it does not answer.

        Raises:
            NotFound: no such credential, or not of type `llm`.
        """
        find = partial(queries.find_credential, credential_id=credential_id)
        row = await self._store.read(find)
        spec = self._spec(row)
        if row is None or isinstance(spec, NoProvider):
            raise NotFound(NOT_AN_LLM)
        names = await self._list_models(spec)
        # As of the row that was asked with: a change meanwhile has made the answer void.
        self._model_lists.remember(credential_id, row.updated_at, names)
        return [CredentialModel(id=name, name=name) for name in names]

    async def provider_spec(self, credential_id: int) -> ProviderSpec | NoProvider:
        """Decrypt what the engine needs to reach a provider, or say why there is none."""
        find = partial(queries.find_credential, credential_id=credential_id)
        return self._spec(await self._store.read(find))

    def _spec(self, row: CredentialRow | None) -> ProviderSpec | NoProvider:
        if row is None:
            return NoProvider.MISSING
        if row.credential_type != "llm":
            return NoProvider.NOT_LLM
        values = self._open(row)
        return ProviderSpec(
            credential_id=row.id,
            provider_type=values["provider_type"],
            api_key=values["api_key"],
            base_url=values["base_url"],
            organization_id=values["organization_id"],
            custom_headers=values["custom_headers"],
        )

    async def open_fields(self, credential_id: int) -> Mapping[str, Any] | None:
        """Decrypt all fields of a credential; None if there is none."""
        find = partial(queries.find_credential, credential_id=credential_id)
        row = await self._store.read(find)
        return None if row is None else self._open(row)

    async def find_preferred_tool(self, tool_type: str) -> Mapping[str, Any] | None:
        """Decrypt the `config` of the oldest preferred tool credential of a type, if any."""
        find = partial(queries.list_credentials, limit=_MAX_CREDENTIALS, offset=0)
        rows, _ = await self._store.read(find)
        for row in rows:
            if row.credential_type == "tool":
                values = self._open(row)
                if values["is_preferred"] and values["tool_type"] == tool_type:
                    config: Mapping[str, Any] = values["config"]
                    return config
        return None

    async def _require_provider(self, credential_id: int) -> ProviderSpec:
        spec = await self.provider_spec(credential_id)
        if isinstance(spec, NoProvider):
            raise NotFound(NOT_AN_LLM)
        return spec

    async def _load(self, credential_id: int) -> CredentialRow:
        find = partial(queries.find_credential, credential_id=credential_id)
        row = await self._store.read(find)
        if row is None:
            raise NotFound(NOT_FOUND)
        return row

    async def _delete(self, principal: Principal, ids: Collection[int]) -> Sequence[int]:
        delete = partial(
            queries.delete_credentials, ids=ids, created_by=visibility.owners_in_scope(principal)
        )
        return await self._store.write(delete)

    def _require_change(self, principal: Principal, row: CredentialRow) -> None:
        if not visibility.can_change_credential(principal, row.created_by_id):
            raise Forbidden(NOT_YOURS)

    def _merged(
        self, principal: Principal, old: CredentialRow, detail: Mapping[str, Any]
    ) -> Values:
        combine = merge if principal.user_id == old.created_by_id else merge_foreign
        return combine(_kind(old), self._open(old), detail)

    def _replaced(self, old: CredentialRow, *, name: str | None, values: Values) -> CredentialRow:
        return msgspec.structs.replace(
            old,
            name=old.name if name is None else name,
            detail=self._seal(_kind(old), values),
            updated_at=self._clock.now(),
        )

    def _view(self, row: CredentialRow) -> Credential:
        return Credential(
            id=row.id,
            name=row.name,
            credential_type=_kind(row),
            detail=show(_kind(row), self._open(row)),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    def _seal(self, kind: CredentialType, values: Values) -> StoredDetail:
        """Encrypt what the type keeps secret. Uses randomness: never inside a unit."""
        clear, secret = {}, {}
        for field in FIELDS[kind]:
            value = values[field.name]
            if field.secrecy is Secrecy.OPEN:
                clear[field.name] = value
            elif value != field.default:
                secret[field.name] = self._secrets.encrypt(msgspec.json.encode(value).decode())
        return StoredDetail(clear=clear, secret=secret)

    def _open(self, row: CredentialRow) -> Values:
        values = {field.name: field.default for field in FIELDS[_kind(row)]} | row.detail.clear
        for name, stored in row.detail.secret.items():
            values[name] = msgspec.json.decode(self._secrets.decrypt(stored))
        return values


def _kind(row: CredentialRow) -> CredentialType:
    return cast("CredentialType", row.credential_type)


def _require_valid(row: CredentialRow, detail: Mapping[str, Any]) -> None:
    problems = [
        f"body.detail.{'.'.join(problem.path)}: {problem.message}"
        for problem in find_problems(_kind(row), detail)
    ]
    if problems:
        raise Invalid(problems=problems)
