"""The first user, logging in, and who am I. Contract: auth.md."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import trio
from sqlalchemy import Connection

from pipelit.clock import Clock, Ids
from pipelit.errors import Conflict, TooMany, Unauthenticated
from pipelit.services.api_keys import describe_key
from pipelit.services.directories import make_workspace
from pipelit.services.passwords import Passwords
from pipelit.services.permits import Permits
from pipelit.services.principal import Principal
from pipelit.services.sessions import Sessions
from pipelit.services.throttle import Origin, Throttle
from pipelit.store import Store
from pipelit.store.queries import keys, users, workspaces
from pipelit.store.writer import Hold

WRONG = "Invalid credentials."
ALREADY_SET_UP = "Setup already completed."
TOO_MANY_LOGINS = "Too many login attempts. Please wait a minute."

SETUP_KEY = "default"
DEFAULT_WORKSPACE = "default"
MAX_WAITING = 100  # password checks that may queue for the one thread

T = TypeVar("T")


class TokenResponse(msgspec.Struct, frozen=True, kw_only=True):
    """An API key, or the word that a second step is needed first."""

    key: str
    requires_mfa: bool = False

    def __repr__(self) -> str:
        return f"TokenResponse(requires_mfa={self.requires_mfa})"


class SetupStatus(msgspec.Struct, frozen=True):
    """Whether the first user is still to be made."""

    needs_setup: bool


class Me(msgspec.Struct, frozen=True):
    """The caller's account."""

    username: str
    mfa_enabled: bool


class AuthService:
    """Makes the first user and gives keys for passwords.

    Password checks run one at a time in a thread: they are slow on purpose, and one core is enough
    for whoever tries many.

    Args:
        sessions: opens what a login gives.
        permits: told who has to go on with a second factor.
        workspaces_dir: where the directories of workspaces lie.
        hold: entered around work in threads, so that a test's clock waits for it.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: Ids,
        *,
        sessions: Sessions,
        permits: Permits,
        workspaces_dir: Path,
        passwords: Passwords,
        hold: Hold = nullcontext,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._sessions = sessions
        self._permits = permits
        self._workspaces_dir = workspaces_dir
        self._passwords = passwords
        self._hold = hold
        self._throttle = Throttle()
        self._turn = trio.Lock()
        self._thread = trio.CapacityLimiter(1)

    async def get_setup_status(self) -> SetupStatus:
        """Tell whether nobody exists yet."""
        return SetupStatus(needs_setup=not await self._store.read(users.has_users))

    async def setup(self, username: str, password: str) -> TokenResponse:
        """Make the first user, an admin, with a key and the default workspace.

        Raises:
            Conflict: somebody exists; of two at once one wins.
        """
        async with self._turn:
            # Asked before the slow hash: this route is open to everybody for ever.
            if await self._store.read(users.has_users):
                raise Conflict(ALREADY_SET_UP)
            hashed = await self._in_thread(partial(self._passwords.hash, password))
            workspace = self._workspaces_dir / DEFAULT_WORKSPACE
            await self._in_thread(partial(make_workspace, self._workspaces_dir, workspace))
            key = self._ids.token()
            create = partial(
                _create_first_user,
                username=username,
                hashed=hashed,
                key=describe_key(key, name=SETUP_KEY, created_at=self._clock.now()),
                workspace=workspace,
            )
            if not await self._store.write(create, key="setup"):
                raise Conflict(ALREADY_SET_UP)
        return TokenResponse(key=key)

    async def login(self, username: str, password: str, *, peer: str) -> TokenResponse:
        """Give a new session key for a right password.

        Args:
            peer: the client's address, for the throttle.

        Raises:
            Unauthenticated: no such user, no password, disabled or wrong password: the same answer
                after the same work.
            TooMany: too many failures of this user from this address; nothing was checked.
        """
        user = await self._check_password(username, password, (peer, username))
        if user.mfa_enabled:
            self._permits.give(user.id, user.password_hash or "", self._clock.now())
            return TokenResponse(key="", requires_mfa=True)
        key = await self._sessions.open(user.id)
        if key is None:
            raise Unauthenticated(WRONG)
        return TokenResponse(key=key)

    async def get_me(self, principal: Principal) -> Me:
        """Describe the caller."""
        user = await self._store.read(partial(users.find_user, user_id=principal.user_id))
        if user is None:
            raise Unauthenticated("User not found.")
        return Me(username=user.username, mfa_enabled=user.mfa_enabled)

    async def _check_password(self, username: str, password: str, origin: Origin) -> users.UserRow:
        self._refuse_throttled(origin)
        if self._turn.statistics().tasks_waiting >= MAX_WAITING:
            raise TooMany(TOO_MANY_LOGINS, retry_after=60)
        async with self._turn:
            # Again: those ahead in the queue may have failed meanwhile.
            self._refuse_throttled(origin)
            find = partial(users.find_user_by_name, username=username)
            user = await self._store.read(find)
            hashed = None if user is None else user.password_hash
            fits = await self._in_thread(partial(self._passwords.verify, password, hashed))
            # No await from here to the count: a client that hangs up early is counted too.
            if user is None or not fits or not user.is_active:
                self._throttle.fail(origin, trio.current_time())
                raise Unauthenticated(WRONG)
        return user

    def _refuse_throttled(self, origin: Origin) -> None:
        wait = self._throttle.wait(origin, trio.current_time())
        if wait > 0:
            raise TooMany(TOO_MANY_LOGINS, retry_after=math.ceil(wait))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        with self._hold():
            return await trio.to_thread.run_sync(work, limiter=self._thread)


def _create_first_user(
    conn: Connection, *, username: str, hashed: str, key: keys.NewKey, workspace: Path
) -> bool:
    """Create the admin with its key and workspace; return False if somebody exists."""
    if users.has_users(conn):
        return False
    now = key.created_at
    user_id = users.insert_person(
        conn, username=username, password_hash=hashed, role="admin", created_at=now
    )
    keys.insert_key(conn, user_id, key)
    workspaces.insert_workspace(
        conn, owner_id=user_id, name=DEFAULT_WORKSPACE, path=str(workspace), created_at=now
    )
    return True
