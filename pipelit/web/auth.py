"""Who asks, and may they: the checks between "the path exists" and "the body is read".

Contract: README.md §2, §4 (401 before 403 before the body).
"""

from collections.abc import Awaitable, Callable

from pipelit.errors import Forbidden, Unauthenticated
from pipelit.services.principal import Principal
from pipelit.web.call import Services
from pipelit.web.request import Head
from pipelit.web.routing import Auth, CustomAuth, Knock

Authenticator = Callable[[str], Awaitable[Principal]]
"""From an API key to its owner; raises `Unauthenticated` with the contract's text."""

MISSING_KEY = "Invalid or missing API key."
ADMIN_ONLY = "Admin access required."


async def identify(
    auth: Auth | CustomAuth, head: Head, authenticate: Authenticator, services: Services
) -> Principal | None:
    """Return who asks; None on a route that is open.

    Raises:
        Unauthenticated: no key, or one that does not count.
        Forbidden: a check of the route's own refuses.
    """
    if isinstance(auth, CustomAuth):
        knock = Knock(
            headers=head.headers,
            query=head.query,
            peer=head.peer,
            services=services,
            authenticate=authenticate,
            bearer=head.bearer,
        )
        return await auth.check(knock)
    if auth is Auth.NONE:
        return None
    key = head.bearer
    if key is None:
        raise Unauthenticated(MISSING_KEY)
    return await authenticate(key)


def require_role(auth: Auth | CustomAuth, caller: Principal | None) -> None:
    """Refuse whoever is known, but may not call the route.

    Raises:
        Forbidden: the route is for administrators.
    """
    if auth is Auth.ADMIN and (caller is None or not caller.is_admin):
        raise Forbidden(ADMIN_ONLY)
