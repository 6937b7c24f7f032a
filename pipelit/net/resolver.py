"""Names to addresses, through the system resolver.

It knows every spelling of a literal that `connect` would know (`127.1`, `0x7f.1`), so that what
is checked is what would be reached. Contract: engine.md §32.
"""

import socket
from ipaddress import ip_address
from typing import Protocol

import trio

from pipelit.errors import PipelitError
from pipelit.net.egress import IPAddress

RESOLVE_SECONDS = 10.0
MAX_ADDRESSES = 32


class ResolveError(PipelitError):
    """A host has no address, or the resolver did not answer in time."""


class Resolver(Protocol):
    """Gives the addresses of a host."""

    async def resolve(self, host: str) -> tuple[IPAddress, ...]:
        """Return at least one address, in the order they should be tried.

        Raises:
            ResolveError: there is none.
        """
        ...


class SystemResolver:
    """Asks the operating system in a thread. Cancelling leaves the thread to end by itself."""

    def __init__(self, *, timeout: float = RESOLVE_SECONDS, max_threads: int = 8) -> None:
        self._timeout = timeout
        self._limiter = trio.CapacityLimiter(max_threads)

    async def resolve(self, host: str) -> tuple[IPAddress, ...]:
        """Return the distinct addresses of *host*, at most `MAX_ADDRESSES`."""
        try:
            with trio.fail_after(self._timeout):
                found = await trio.to_thread.run_sync(
                    _look_up, host, abandon_on_cancel=True, limiter=self._limiter
                )
        except trio.TooSlowError:
            raise ResolveError(f"no answer for '{host}' in {self._timeout:g} s") from None
        except (OSError, UnicodeError) as error:
            raise ResolveError(f"cannot resolve '{host}': {error}") from error
        if not found:
            raise ResolveError(f"cannot resolve '{host}': no address")
        return found


def _look_up(host: str) -> tuple[IPAddress, ...]:
    rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = dict.fromkeys(
        ip_address(row[4][0])
        for row in rows
        if row[0] in (socket.AF_INET, socket.AF_INET6) and isinstance(row[4][0], str)
    )
    return tuple(addresses)[:MAX_ADDRESSES]
