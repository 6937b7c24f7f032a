"""The accounts of agents: made on first use, found again later, with a key and one-time codes.

Key and secret are stored encrypted, like credentials. Contract: node-types.md §8.1, §8.4, users.md.
"""

import hashlib
from functools import partial

import msgspec
import pyotp
from sqlalchemy import Connection

from pipelit.clock import Clock, Ids
from pipelit.errors import Conflict, NotFound
from pipelit.nodes.agent_account import AgentAccount
from pipelit.nodes.json_tools import Acting
from pipelit.services.agent_lookup import find_parent
from pipelit.services.api_keys import describe_key
from pipelit.services.audit_log import Act, NewEntry, log_entry
from pipelit.services.principal import Principal
from pipelit.services.tool_owner import get_acting
from pipelit.services.totp import make_secret
from pipelit.store import Store
from pipelit.store.queries import agents as queries
from pipelit.store.queries.agents import AccountRow
from pipelit.store.queries.keys import NewKey, insert_key
from pipelit.store.queries.security_log import insert_entry
from pipelit.store.secrets import Secrets

DEFAULT_PURPOSE = "Agent-created user"
NOT_FOUND = "Agent user not found"
NO_SECRET = "No TOTP secret configured for this user"
KEY_NAME = "agent"
MAX_USERNAME = 150
_HASH_DIGITS = 12


class _Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a new account or key needs, made before the unit: encrypting is random."""

    key: str
    described: NewKey
    sealed_key: str
    sealed_totp: str

    def __repr__(self) -> str:
        return "_Made()"


class _Obtained(msgspec.Struct, frozen=True, kw_only=True):
    """An account; `sealed_key` is None if its key is the one just made."""

    username: str
    purpose: str
    sealed_key: str | None
    already_existed: bool
    entry: NewEntry


class StoredAgentAccounts:
    """Implements `pipelit.nodes.agent_account.AgentAccounts`."""

    def __init__(self, store: Store, clock: Clock, ids: Ids, secrets: Secrets) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._secrets = secrets

    async def obtain(self, acting: Acting, purpose: str) -> AgentAccount:
        """Return the account of the agent the tool is attached to; make it if there is none.

        Raises:
            NotFound: the workflow is gone.
            Conflict: the name is somebody else's, or the account is disabled.
        """
        made = self._make()

        def obtain(conn: Connection) -> _Obtained:
            owner = get_acting(conn, acting)
            username = find_username(conn, acting)
            found = queries.find_account(conn, username)
            entry = _entry(owner, username, "agent_create" if found is None else "agent_key_read")
            insert_entry(conn, entry, created_at=made.described.created_at)
            if found is None:
                user_id = queries.insert_agent(
                    conn,
                    username=username,
                    purpose=purpose or DEFAULT_PURPOSE,
                    created_by_id=owner.user_id,
                    totp_secret=made.sealed_totp,
                    created_at=made.described.created_at,
                )
                insert_key(conn, user_id, made.described, sealed=made.sealed_key)
                return _Obtained(
                    username=username,
                    purpose=purpose or DEFAULT_PURPOSE,
                    sealed_key=None,
                    already_existed=False,
                    entry=entry,
                )
            _require_usable(found, owner)
            sealed = queries.find_sealed_key(conn, found.id, now=made.described.created_at)
            if sealed is None:  # it was revoked
                insert_key(conn, found.id, made.described, sealed=made.sealed_key)
            return _Obtained(
                username=username,
                purpose=found.purpose,
                sealed_key=sealed,
                already_existed=True,
                entry=entry,
            )

        got = await self._store.write(obtain)
        log_entry(got.entry)
        key = made.key if got.sealed_key is None else self._secrets.decrypt(got.sealed_key)
        return AgentAccount(
            username=got.username,
            api_key=key,
            purpose=got.purpose,
            already_existed=got.already_existed,
        )

    async def one_time_code(self, acting: Acting, username: str) -> tuple[str, str]:
        """Return name and present code of an account; no name stands for the agent's own.

        Raises:
            NotFound: the owner's agents have no such account, or it has no secret.
        """
        found = await self._store.read(partial(_find_own_account, acting=acting, username=username))
        if found.totp_secret is None:
            raise NotFound(NO_SECRET)
        totp = pyotp.TOTP(self._secrets.decrypt(found.totp_secret))
        return found.username, totp.at(self._clock.now())

    def _make(self) -> _Made:
        key = self._ids.token()
        return _Made(
            key=key,
            described=describe_key(key, name=KEY_NAME, created_at=self._clock.now()),
            sealed_key=self._secrets.encrypt(key),
            sealed_totp=self._secrets.encrypt(make_secret(self._ids)),
        )


def _entry(owner: Principal, username: str, act: Act) -> NewEntry:
    """Return what the audit log keeps of a tool that gives an agent its key."""
    return NewEntry(
        kind=act,
        outcome="done",
        user_id=owner.user_id,
        username=owner.username,
        subject={"agent": username},
    )


def find_username(conn: Connection, acting: Acting) -> str:
    """Return the name of the account of the agent a tool is attached to."""
    parent = find_parent(conn, acting.workflow_id, acting.tool_id)
    node_id = acting.tool_id if parent is None else parent.node_id
    return username_of(acting.workflow_slug, node_id)


def username_of(workflow_slug: str, node_id: str) -> str:
    """Return the name of an agent's account; what would be too long ends in a hash. Pure."""
    name = f"agent_{workflow_slug}_{node_id}"
    if len(name) <= MAX_USERNAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{name[: MAX_USERNAME - _HASH_DIGITS - 1]}_{digest}"


def _find_own_account(conn: Connection, acting: Acting, username: str) -> AccountRow:
    owner = get_acting(conn, acting)
    found = queries.find_account(conn, username or find_username(conn, acting))
    if found is None or not _belongs_to(found, owner) or not found.is_active:
        raise NotFound(NOT_FOUND)
    return found


def _belongs_to(found: AccountRow, owner: Principal) -> bool:
    return found.kind == "agent" and found.created_by_id == owner.user_id


def _require_usable(found: AccountRow, owner: Principal) -> None:
    if not _belongs_to(found, owner):
        # A workflow of this name was another owner's: its agent's key is not ours to give.
        raise Conflict(f"Username '{found.username}' is already taken")
    if not found.is_active:
        raise Conflict(f"Agent user '{found.username}' is disabled")
