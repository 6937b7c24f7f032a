"""Setup, login and sessions, below HTTP. Contract: auth.md."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from sqlalchemy import func, insert, select, update

from pipelit.clock import Ids
from pipelit.errors import Conflict, TooMany, Unauthenticated, Unavailable
from pipelit.services.api_keys import KeyEvents
from pipelit.services.auth import AuthService, SetupStatus, TokenResponse
from pipelit.services.authenticator import Authenticator
from pipelit.services.passwords import Passwords
from pipelit.services.permits import Permits
from pipelit.services.sessions import Sessions
from pipelit.store import Store
from pipelit.store.schema import api_keys, users, workspaces
from tests.services.conftest import HandClock


class CountingPasswords(Passwords):
    """Counts the slow work."""

    def __init__(self) -> None:
        super().__init__(cost=4)
        self.checked: list[str | None] = []
        self.hashed = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def hash(self, password: str) -> str:
        self.hashed += 1
        return super().hash(password)

    def verify(self, password: str, hashed: str | None) -> bool:
        self.checked.append(hashed)
        self.meanwhile()
        return super().verify(password, hashed)


@pytest.fixture
def passwords() -> CountingPasswords:
    return CountingPasswords()


@pytest.fixture
def auth(
    store: Store,
    clock: HandClock,
    events: KeyEvents,
    tmp_path: Path,
    passwords: CountingPasswords,
) -> AuthService:
    directory = tmp_path / "workspaces"
    return AuthService(
        store,
        clock,
        Ids.seeded(1),
        sessions=Sessions(store, clock, Ids.seeded(3), events),
        permits=Permits(),
        workspaces_dir=directory,
        passwords=passwords,
    )


async def set_users(store: Store, **values: object) -> None:
    await store.write(lambda conn: conn.execute(update(users).values(**values)).rowcount)


async def test_setup_makes_an_admin_a_key_and_the_default_workspace(
    auth: AuthService, authenticator: Authenticator, store: Store, tmp_path: Path
) -> None:
    """One call makes everything the first user needs."""
    assert await auth.get_setup_status() == SetupStatus(needs_setup=True)

    answer = await auth.setup("ada", "correct horse")

    principal = await authenticator.authenticate(answer.key)
    space = tmp_path / "workspaces" / "default"
    row = await store.read(lambda conn: conn.execute(select(workspaces)).mappings().one())
    key = await store.read(lambda conn: conn.execute(select(api_keys)).mappings().one())
    assert await auth.get_setup_status() == SetupStatus(needs_setup=False)
    assert (principal.username, principal.is_admin) == ("ada", True)
    assert (row["name"], row["path"], row["owner_id"]) == ("default", str(space), 1)
    assert (row["allow_network"], row["env_vars"]) == (False, [])
    assert (key["name"], key["expires_at"]) == ("default", None)
    assert (space / ".tmp").is_dir()
    assert space.stat().st_mode & 0o777 == 0o700


async def test_of_two_setups_at_once_one_wins(auth: AuthService, store: Store) -> None:
    """There are never two first users."""
    outcomes: list[TokenResponse | Conflict] = []

    async def attempt(name: str) -> None:
        try:
            outcomes.append(await auth.setup(name, "pw"))
        except Conflict as refusal:
            outcomes.append(refusal)

    async with trio.open_nursery() as nursery:
        for name in ("ada", "eve", "mia"):
            nursery.start_soon(attempt, name)

    count = await store.read(lambda conn: conn.scalar(select(func.count()).select_from(users)))
    assert count == 1
    assert sorted(type(outcome).__name__ for outcome in outcomes) == [
        "Conflict",
        "Conflict",
        "TokenResponse",
    ]


async def test_two_servers_setting_up_one_database_make_one_admin(
    auth: AuthService, store: Store, clock: HandClock, tmp_path: Path
) -> None:
    """The decision is made in the transaction, not before it."""

    class Late(Store):
        """Answers as the database was before anybody existed."""

        def __init__(self) -> None:
            pass

        async def read(self, query, *, timeout=None):  # type: ignore[no-untyped-def]
            return False

        async def write(self, unit, key=None, *, patient=False):  # type: ignore[no-untyped-def]
            return await store.write(unit, key)

    late = AuthService(
        Late(),
        clock,
        Ids.seeded(2),
        sessions=Sessions(Late(), clock, Ids.seeded(3), KeyEvents()),
        permits=Permits(),
        workspaces_dir=tmp_path / "workspaces",
        passwords=Passwords(cost=4),
    )
    await auth.setup("ada", "pw")

    with pytest.raises(Conflict, match=r"^Setup already completed\.$"):
        await late.setup("eve", "pw")


async def test_a_late_setup_costs_no_slow_hash(
    auth: AuthService, passwords: CountingPasswords
) -> None:
    """The open route cannot be used to keep the server busy."""
    await auth.setup("ada", "pw")

    with pytest.raises(Conflict):
        await auth.setup("eve", "pw")

    assert passwords.hashed == 1


async def test_setup_without_a_writable_directory_makes_nobody(
    auth: AuthService, tmp_path: Path
) -> None:
    """The directory comes first: a user without a workspace does not happen."""
    (tmp_path / "workspaces").write_text("in the way")

    with pytest.raises(Unavailable, match=r"^Storage is not available\.$"):
        await auth.setup("ada", "pw")

    assert (await auth.get_setup_status()).needs_setup


async def test_a_right_password_gives_a_new_session_key(
    auth: AuthService, authenticator: Authenticator
) -> None:
    """Each login gives a key of its own and leaves the first key alone."""
    first = await auth.setup("ada", "correct horse")

    one = await auth.login("ada", "correct horse", peer="::1")
    two = await auth.login("ada", "correct horse", peer="::1")

    assert len({first.key, one.key, two.key}) == 3
    assert not one.requires_mfa
    for key in (first.key, one.key, two.key):
        assert len(key) == 43
        assert (await authenticator.authenticate(key)).username == "ada"


async def test_ten_sessions_are_kept_and_the_oldest_is_revoked_at_once(
    auth: AuthService, authenticator: Authenticator, clock: HandClock
) -> None:
    """The eleventh login ends the first session, cached or not, and no key of another name."""
    setup = await auth.setup("ada", "pw")
    sessions = []
    for _ in range(10):
        clock.advance(1)
        sessions.append((await auth.login("ada", "pw", peer="::1")).key)
    await authenticator.authenticate(sessions[0])

    clock.advance(1)
    sessions.append((await auth.login("ada", "pw", peer="::1")).key)

    with pytest.raises(Unauthenticated, match=r"^API key has been revoked\.$"):
        await authenticator.authenticate(sessions[0])
    for key in (setup.key, *sessions[1:]):
        await authenticator.authenticate(key)


@pytest.mark.parametrize(
    ("username", "password", "changes"),
    [
        ("nobody", "pw", {}),
        ("ADA", "pw", {}),
        ("ada", "pW", {}),
        ("ada", "pw", {"is_active": False}),
        ("ada", "pw", {"password_hash": None}),
    ],
)
async def test_every_failure_is_the_same_answer_after_the_same_work(
    auth: AuthService,
    store: Store,
    passwords: CountingPasswords,
    username: str,
    password: str,
    changes: dict[str, object],
) -> None:
    """Unknown, disabled, without a password, wrong: nobody can tell which."""
    await auth.setup("ada", "pw")
    if changes:
        await set_users(store, **changes)

    with pytest.raises(Unauthenticated, match=r"^Invalid credentials\.$"):
        await auth.login(username, password, peer="::1")

    assert len(passwords.checked) == 1


async def test_nobody_logs_in_before_setup(auth: AuthService) -> None:
    """Without users every login is refused like any wrong one."""
    with pytest.raises(Unauthenticated, match=r"^Invalid credentials\.$"):
        await auth.login("ada", "pw", peer="::1")


async def test_after_eleven_failures_nothing_is_checked_from_that_address(
    auth: AuthService, passwords: CountingPasswords
) -> None:
    """The right password, too, is refused unchecked; from another address it is good."""
    await auth.setup("ada", "pw")
    for _ in range(11):
        with pytest.raises(Unauthenticated):
            await auth.login("ada", "wrong", peer="10.0.0.1")

    with pytest.raises(TooMany) as refusal:
        await auth.login("ada", "pw", peer="10.0.0.1")

    assert refusal.value.detail == "Too many login attempts. Please wait a minute."
    assert 55 <= refusal.value.retry_after <= 60
    assert len(passwords.checked) == 11
    assert (await auth.login("ada", "pw", peer="10.0.0.2")).key


async def test_tries_sent_together_count_one_by_one(
    auth: AuthService, passwords: CountingPasswords
) -> None:
    """Parallel guesses get no further than guesses in a row."""
    refusals: list[str] = []

    async def guess() -> None:
        try:
            await auth.login("ada", "wrong", peer="10.0.0.1")
        except (Unauthenticated, TooMany) as refusal:
            refusals.append(type(refusal).__name__)

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(guess)

    assert len(passwords.checked) == 11
    assert refusals.count("TooMany") == 19


async def test_a_client_that_hangs_up_is_counted(
    auth: AuthService, passwords: CountingPasswords
) -> None:
    """Cancelling a login during the check saves nobody from the throttle."""
    for _ in range(11):
        with trio.CancelScope() as scope:
            passwords.meanwhile = partial(trio.from_thread.run_sync, scope.cancel)
            with pytest.raises(Unauthenticated):
                await auth.login("ada", "wrong", peer="10.0.0.1")

    with pytest.raises(TooMany):
        await auth.login("ada", "wrong", peer="10.0.0.1")


async def test_with_mfa_the_password_alone_gives_no_key(auth: AuthService, store: Store) -> None:
    """The answer says that a second step is needed and nothing else is made."""
    await auth.setup("ada", "pw")
    await set_users(store, mfa_enabled=True)

    answer = await auth.login("ada", "pw", peer="::1")

    keys = await store.read(lambda conn: conn.scalar(select(func.count()).select_from(api_keys)))
    assert answer == TokenResponse(key="", requires_mfa=True)
    assert keys == 1


async def test_me_is_the_caller(
    auth: AuthService, authenticator: Authenticator, store: Store, clock: HandClock
) -> None:
    """Name and flag of the principal's own account."""
    answer = await auth.setup("ada", "pw")
    other = insert(users).values(username="eve", mfa_enabled=True, created_at=clock.now())
    await store.write(lambda conn: conn.execute(other).rowcount)

    me = await auth.get_me(await authenticator.authenticate(answer.key))

    assert (me.username, me.mfa_enabled) == ("ada", False)


async def test_no_key_is_shown_by_repr(auth: AuthService) -> None:
    """A log line or traceback that shows the answer shows no key."""
    answer = await auth.setup("ada", "pw")

    assert answer.key not in repr(answer)
