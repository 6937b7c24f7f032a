"""The second factor: codes of an authenticator app. Contract: auth.md, MFA (TOTP).

All that happens to one user's factor happens one after the other, and what a check decides is
decided once more by the write that uses up the code: no code counts twice, on no server.
"""

from functools import partial
from weakref import WeakValueDictionary

import msgspec
import trio

from pipelit.clock import Clock, Ids
from pipelit.errors import BadRequest, Unauthenticated
from pipelit.services.auth import WRONG, TokenResponse
from pipelit.services.code_guard import CodeGuard
from pipelit.services.permits import Permits
from pipelit.services.principal import Principal
from pipelit.services.sessions import Sessions
from pipelit.services.totp import find_step, make_secret, make_uri
from pipelit.store import Store
from pipelit.store.queries import mfa as queries
from pipelit.store.queries.mfa import MfaRow
from pipelit.store.secrets import Secrets

ALREADY_ON = "MFA is already enabled."
NOT_ON = "MFA is not enabled."
NOT_SET_UP = "Call /mfa/setup/ first."
WRONG_CODE = "Invalid TOTP code."
NO_USER = "User not found."


class MfaSetup(msgspec.Struct, frozen=True, kw_only=True):
    """A secret to be put into an authenticator app. It counts after `verify`."""

    secret: str
    provisioning_uri: str

    def __repr__(self) -> str:
        return "MfaSetup()"


class MfaStatus(msgspec.Struct, frozen=True):
    """Whether a login needs a code."""

    mfa_enabled: bool


class MfaService:
    """Switches the second factor on and off, and asks for it at login.

    Args:
        permits: where `AuthService` notes who passed the password step.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: Ids,
        secrets: Secrets,
        *,
        permits: Permits,
        sessions: Sessions,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._secrets = secrets
        self._permits = permits
        self._sessions = sessions
        self._guard = CodeGuard()
        # Weak: a lock lives as long as somebody holds it or waits for it.
        self._turns: WeakValueDictionary[int, trio.Lock] = WeakValueDictionary()

    async def get_status(self, principal: Principal) -> MfaStatus:
        """Tell whether the caller's logins need a code."""
        return MfaStatus((await self._load(principal)).mfa_enabled)

    async def setup(self, principal: Principal) -> MfaSetup:
        """Make a new secret for the caller, in place of one not yet verified.

        Raises:
            BadRequest: MFA is on.
        """
        secret = make_secret(self._ids)
        sealed = self._secrets.encrypt(secret)
        async with self._turn(principal.user_id):
            keep = partial(queries.set_pending, user_id=principal.user_id, sealed=sealed)
            if not await self._store.write(keep):
                raise BadRequest(ALREADY_ON)
        return MfaSetup(secret=secret, provisioning_uri=make_uri(principal.username, secret))

    async def verify(self, principal: Principal, code: str) -> MfaStatus:
        """Switch MFA on with a code of the secret that `setup` gave.

        Raises:
            BadRequest: MFA is on, `setup` was not called, or the code is wrong.
            TooMany: the code was not looked at.
        """
        async with self._turn(principal.user_id):
            row = await self._load(principal)
            if row.mfa_enabled:
                raise BadRequest(ALREADY_ON)
            if row.totp_pending is None:
                raise BadRequest(NOT_SET_UP)
            step = self._check(row, row.totp_pending, code)
            if step is None or not await self._store.write(
                partial(queries.enable, old=row, step=step)
            ):
                raise BadRequest(WRONG_CODE)
        return MfaStatus(True)

    async def disable(self, principal: Principal, code: str) -> MfaStatus:
        """Switch MFA off with a code; keys stay valid.

        Raises:
            BadRequest: MFA is off, or the code is wrong.
            TooMany: the code was not looked at.
        """
        async with self._turn(principal.user_id):
            row = await self._load(principal)
            if not row.mfa_enabled or row.totp_secret is None:
                raise BadRequest(NOT_ON)
            step = self._check(row, row.totp_secret, code)
            if step is None or not await self._store.write(
                partial(queries.disable, old=row, step=step)
            ):
                raise BadRequest(WRONG_CODE)
        return MfaStatus(False)

    async def reset(self, principal: Principal) -> MfaStatus:
        """Switch MFA off without a code. The web layer lets only this machine ask."""
        async with self._turn(principal.user_id):
            await self._store.write(partial(queries.clear, user_id=principal.user_id))
        return MfaStatus(False)

    async def verify_login(self, username: str, code: str) -> TokenResponse:
        """Give a session key for a code, to whoever just gave the password.

        Raises:
            Unauthenticated: no password step, as for unknown users; or the code is wrong.
            TooMany: the code was not looked at.
        """
        find = partial(queries.find_mfa_by_name, username=username)
        # First without a turn: who gave no password cannot make the owner wait.
        row = self._require_permit(await self._store.read(find))
        async with self._turn(row.id):
            row = self._require_permit(await self._store.read(find))
            step = self._check(row, row.totp_secret or "", code)
            key = None
            if step is not None:
                key = await self._sessions.open(
                    row.id, provided=partial(queries.use_step, old=row, step=step)
                )
            if key is None:
                raise Unauthenticated(WRONG_CODE)
            self._permits.take(row.id)
        return TokenResponse(key=key)

    def _turn(self, user_id: int) -> trio.Lock:
        return self._turns.setdefault(user_id, trio.Lock())

    async def _load(self, principal: Principal) -> MfaRow:
        row = await self._store.read(partial(queries.find_mfa, user_id=principal.user_id))
        if row is None:
            raise Unauthenticated(NO_USER)
        return row

    def _require_permit(self, row: MfaRow | None) -> MfaRow:
        if row is None or not row.is_active or not row.mfa_enabled or row.totp_secret is None:
            raise Unauthenticated(WRONG)
        if not self._permits.holds(row.id, row.password_hash, self._clock.now()):
            raise Unauthenticated(WRONG)
        return row

    def _check(self, row: MfaRow, sealed: str, code: str) -> int | None:
        """Count a check and return the step of the code, None for a wrong one. Awaits nothing."""
        now = self._clock.now()
        self._guard.admit(row.id, now)
        step = find_step(self._secrets.decrypt(sealed), code, now, after=row.totp_last_step)
        self._guard.settle(row.id, now, right=step is not None)
        return step
