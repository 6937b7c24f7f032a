"""People and how they get in: the services of auth.md, users.md and beyond.md §7–8."""

from pipelit.assembly.base import Base
from pipelit.services.agents import AgentsService
from pipelit.services.auth import AuthService
from pipelit.services.mfa import MfaService
from pipelit.services.passwords import Passwords
from pipelit.services.permits import Permits
from pipelit.services.sessions import Sessions
from pipelit.services.user_keys import UserKeysService
from pipelit.services.users import UsersService


def build_accounts(base: Base) -> tuple[object, ...]:
    """Build the services about accounts. What they count in memory begins anew."""
    settings, store, world = base.settings, base.opened.store, base.world
    passwords = Passwords()
    permits = Permits()
    sessions = Sessions(store, world.clock, world.ids, base.keys)
    return (
        AuthService(
            store,
            world.clock,
            world.ids,
            sessions=sessions,
            permits=permits,
            workspaces_dir=settings.data_dir / "workspaces",
            passwords=passwords,
        ),
        MfaService(
            store,
            world.clock,
            world.ids,
            base.opened.secrets,
            permits=permits,
            sessions=sessions,
        ),
        UsersService(store, world.clock, base.keys, passwords=passwords),
        UserKeysService(store, world.clock, world.ids, base.keys),
        AgentsService(store, base.keys),
    )
