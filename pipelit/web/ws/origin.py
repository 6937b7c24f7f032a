"""Which pages a browser may let open a socket.

A browser sends `Origin` and asks nobody first, as it does before requests to another site. Programs
send none. Contract: websocket.md, "Connection".
"""

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from pipelit.net.egress import normal_host

AllowOrigin = Callable[[Mapping[str, str]], bool]
"""Tells by the headers of a handshake whether it may go on. Names are in lower case."""

_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


def allow_any(headers: Mapping[str, str]) -> bool:
    """Allow every page."""
    return True


def allow_own(headers: Mapping[str, str], *, base_url: str) -> bool:
    """Allow pages of the host that is asked, or of the one at *base_url*; ports do not matter.

    A page that may send to this name can read its answers too only if it has a key: so the check
    is a second lock, and need not know every proxy between.
    """
    origin = headers.get("origin")
    if origin is None:
        return True
    page = _host_of(origin)
    return page is not None and page in (
        _host_of(f"//{headers.get('host', '')}"),
        _host_of(base_url),
    )


def _host_of(url: str) -> str | None:
    """Return the host of *url* in its normal form, one name for this machine; None without one."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return None
    if not host:
        return None
    host = normal_host(host)
    return "localhost" if host in _HERE else host
