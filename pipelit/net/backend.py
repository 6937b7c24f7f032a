"""Opens TCP connections to checked addresses only.

The HTTP library asks for `(host, port)`; the host is resolved once, every address is checked,
and the socket goes to one of them, never to the name again. TLS still verifies the name.
"""

from collections.abc import Callable, Iterable
from typing import Any

import httpcore2
import trio

from pipelit.net.egress import Caller, EgressBlocked, EgressPolicy, IPAddress
from pipelit.net.resolver import ResolveError, Resolver

CONNECT_SECONDS = 30.0


class EgressGuard:
    """Resolves and checks hosts for one caller."""

    def __init__(
        self,
        policy: EgressPolicy,
        caller: Caller,
        resolver: Resolver,
        on_blocked: Callable[[Caller], object] = lambda _: None,
    ) -> None:
        """*on_blocked* is told of each refusal, for metrics."""
        self._on_blocked = on_blocked
        self._policy = policy
        self._caller: Caller = caller
        self._resolver = resolver

    async def resolve(self, host: str, port: int) -> tuple[IPAddress, ...]:
        """Return the addresses of *host*, all of them allowed.

        Raises:
            EgressBlocked: the policy refuses one of them.
            ResolveError: there are none.
        """
        addresses = await self._resolver.resolve(host)
        if self._policy.find_refused(self._caller, host, addresses) is None:
            return addresses
        opened = await self._listed_addresses(port)
        refused = self._policy.find_refused(self._caller, host, addresses, opened=opened)
        if refused is not None:
            self._on_blocked(self._caller)
            raise EgressBlocked(host, refused)
        return addresses

    async def _listed_addresses(self, port: int) -> frozenset[IPAddress]:
        found: set[IPAddress] = set()
        for name in self._policy.names_on(port):
            try:
                found.update(await self._resolver.resolve(name))
            except ResolveError:
                continue  # a listed name without an address opens nothing
        return frozenset(found)


class CheckedBackend(httpcore2.AsyncNetworkBackend):
    """The network as the HTTP library sees it: every connection passes the guard."""

    def __init__(self, guard: EgressGuard) -> None:
        self._guard = guard
        self._trio = httpcore2.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first checked address that answers, *timeout* seconds in all."""
        deadline = trio.current_time() + (CONNECT_SECONDS if timeout is None else timeout)
        try:
            addresses = await self._guard.resolve(host, port)
        except ResolveError as error:
            raise httpcore2.ConnectError(str(error)) from error
        for left in range(len(addresses), 0, -1):
            # An address that swallows packets must not eat the others' time.
            share = max(0.0, deadline - trio.current_time()) / left
            try:
                return await self._trio.connect_tcp(
                    str(addresses[-left]), port, share, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if left == 1:
                    raise
        raise httpcore2.ConnectError(f"no address for '{host}'")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Refuse: a socket file is no network address."""
        raise httpcore2.ConnectError(f"not a network address: {path}")

    async def sleep(self, seconds: float) -> None:
        """Wait between the library's connection attempts."""
        await trio.sleep(seconds)
