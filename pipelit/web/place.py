"""Does a request come from this very machine? Contract: auth.md, MFA: Reset place."""

from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address

FORWARDING_HEADERS = frozenset({"forwarded", "x-forwarded-for", "x-real-ip"})


def is_here(peer: str, headers: Mapping[str, str]) -> bool:
    """Whether the TCP peer is loopback and no proxy speaks for somebody else.

    Args:
        peer: the other end of the connection, as the socket knows it.
        headers: of the request, names in lower case.
    """
    return _is_loopback(peer) and not FORWARDING_HEADERS & headers.keys()


def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
