"""Which addresses the server may connect to on behalf of whom. Pure.

Contract: engine.md §32. This module decides; `pipelit.net.backend` resolves and connects.
"""

import enum
from collections.abc import Collection, Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from pipelit.errors import PipelitError

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

Caller = Literal["workflow", "provider"]
"""`workflow`: nodes, replies and delivery. `provider`: everything that talks to a model."""


class EgressBlocked(PipelitError):
    """The policy refuses a host; nothing was sent. `code` is what observers see."""

    code = "EgressBlockedError"

    def __init__(self, host: str, address: IPAddress) -> None:
        super().__init__(f"blocked address: {host} ({address})")
        self.host = host
        self.address = address


class AddressClass(enum.Enum):
    """The columns of the contract's table."""

    LOOPBACK = "loopback"
    PRIVATE = "private"
    GLOBAL = "global"
    OTHER = "other"


_ALLOWED: dict[Caller, frozenset[AddressClass]] = {
    "workflow": frozenset({AddressClass.GLOBAL}),
    "provider": frozenset({AddressClass.LOOPBACK, AddressClass.PRIVATE, AddressClass.GLOBAL}),
}

_METADATA_HOSTS = frozenset({"metadata.google.internal"})
_METADATA_ADDRESSES = frozenset(
    ip_address(text)
    for text in ("169.254.169.254", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")
)

_LOOPBACK = tuple(map(ip_network, ("127.0.0.0/8", "::1/128")))
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))

# IANA special-purpose registries: what is not meant to be reached over the Internet.
_SPECIAL_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))

# Carriers of IPv4: by themselves as good as what they carry.
_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")
_CARRIERS = (_NAT64, _NAT64_LOCAL, _SIX_TO_FOUR, _TEREDO)


def classify(address: IPAddress) -> AddressClass:
    """Return the class of one address, what it may carry inside not considered."""
    if address in _METADATA_ADDRESSES:
        return AddressClass.OTHER
    if any(address in network for network in _LOOPBACK):
        return AddressClass.LOOPBACK
    if any(address in network for network in _PRIVATE):
        return AddressClass.PRIVATE
    return AddressClass.GLOBAL if _is_global(address) else AddressClass.OTHER


def _is_global(address: IPAddress) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    if any(address in network for network in _CARRIERS):
        return True
    return address in _GLOBAL_UNICAST_V6 and not any(address in net for net in _SPECIAL_V6)


def unwrap(address: IPAddress) -> tuple[IPAddress, ...]:
    """Return every form of *address* that has to pass: itself and the IPv4 it carries.

    An IPv4-mapped address is its IPv4 address: the kernel connects to nothing else.
    """
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    return (address, *(IPv4Address(raw) for raw in _carried(address)))


def _carried(address: IPv6Address) -> tuple[bytes, ...]:
    raw = address.packed
    if address in _NAT64:
        return (raw[12:],)
    if address in _NAT64_LOCAL:
        return _carried_by_local_nat64(raw)
    if address in _SIX_TO_FOUR:
        return (raw[2:6],)
    if address in _TEREDO:
        server, client = raw[4:8], bytes(byte ^ 0xFF for byte in raw[12:])
        return (server, client)
    return ()


def _carried_by_local_nat64(raw: bytes) -> tuple[bytes, ...]:
    # RFC 6052: the translator's prefix is /96, or anything down to /48 with byte 8 left out.
    # Only it knows which, so every place that could hold the IPv4 address has to pass.
    if not any(raw[6:12]):
        return (raw[12:],)
    return (raw[12:], raw[6:8] + raw[9:11], raw[7:8] + raw[9:12], raw[9:13])


class HostPort(msgspec.Struct, frozen=True):
    """A listed `host:port`. `host`: normal form of a name or an address."""

    host: str
    port: int


class EgressPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator opened beyond the table."""

    networks: tuple[IPNetwork, ...] = ()
    hosts: tuple[HostPort, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str], *, own_urls: Iterable[str] = ()) -> "EgressPolicy":
        """Read the entries of `EGRESS_ALLOW`.

        Args:
            entries: CIDRs or `host:port`.
            own_urls: the operator's own services; they count as listed. Empty ones are ignored.

        Raises:
            ValueError: an entry is neither; the text names it.
        """
        networks: list[IPNetwork] = []
        hosts = [_host_port_of(url) for url in own_urls if url]
        for entry in filter(None, (entry.strip() for entry in entries)):
            try:
                networks.append(ip_network(entry, strict=False))
            except ValueError:
                hosts.append(_parse_host_port(entry))
        return cls(networks=tuple(networks), hosts=tuple(hosts))

    def names_on(self, port: int) -> tuple[str, ...]:
        """Return the listed hosts whose addresses are open on *port*."""
        return tuple(listed.host for listed in self.hosts if listed.port == port)

    def find_refused(
        self,
        caller: Caller,
        host: str,
        addresses: Iterable[IPAddress],
        *,
        opened: Collection[IPAddress] = (),
    ) -> IPAddress | None:
        """Return the first address that refuses *host*, or None if all may be connected to.

        Args:
            caller: whose column of the table counts.
            host: as asked for, a name or a literal.
            addresses: everything the host resolved to.
            opened: addresses of the listed hosts on the port in question.
        """
        is_metadata = normal_host(host) in _METADATA_HOSTS
        for address in addresses:
            if not self._is_open(caller, address, opened, is_metadata=is_metadata):
                return address
        return None

    def _is_open(
        self,
        caller: Caller,
        address: IPAddress,
        opened: Collection[IPAddress],
        *,
        is_metadata: bool,
    ) -> bool:
        if self._is_listed(address, opened):
            return True
        if is_metadata:
            return False
        return all(
            self._is_listed(form, opened) or classify(form) in _ALLOWED[caller]
            for form in unwrap(address)
        )

    def _is_listed(self, address: IPAddress, opened: Collection[IPAddress]) -> bool:
        forms = (address, *unwrap(address)[:1])
        return any(
            form in opened or any(form in network for network in self.networks) for form in forms
        )


def normal_host(host: str) -> str:
    """Return the form in which hosts are compared: lower case, no brackets, no final dot."""
    return host.strip("[]").lower().rstrip(".")


def _host_port_of(url: str) -> HostPort:
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError(f"URL without a host: '{url}'")
    return HostPort(
        normal_host(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
    )


def _parse_host_port(entry: str) -> HostPort:
    host, colon, port = entry.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    valid_host = bool(normal_host(host)) and (bracketed or ":" not in host) and "/" not in host
    if not (colon and valid_host and port.isascii() and port.isdigit()):
        raise ValueError(f"neither a CIDR nor host:port: '{entry}'")
    if not 0 < int(port) <= 65535:
        raise ValueError(f"port out of range: '{entry}'")
    return HostPort(normal_host(host), int(port))
