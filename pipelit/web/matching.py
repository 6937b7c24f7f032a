"""Finds the route of a path. A literal segment always wins; both slash forms are one path.

Contract: README.md §1. The tree does not go back: where a literal matches, the parameter beside it
is never tried, so `/users/me/…` cannot turn into user "me".
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

if TYPE_CHECKING:
    from pipelit.web.routing import Route

METHOD_ORDER = ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS")


class Match(msgspec.Struct, frozen=True):
    """The routes of one path by method, and the path's parameters in order, decoded."""

    routes: "Mapping[str, Route]"
    values: Sequence[str]

    @property
    def allowed(self) -> str:
        """The `Allow` header: what the path answers, HEAD and OPTIONS included."""
        methods = {*self.routes, "OPTIONS"} | ({"HEAD"} if "GET" in self.routes else set())
        return ", ".join(method for method in METHOD_ORDER if method in methods)


class _Node:
    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.rest: _Node | None = None
        self.routes: dict[str, Route] = {}


class RouteTable:
    """All routes as a tree of segments. Built once; immutable by convention afterwards."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, route: "Route", prefix: str = "") -> None:
        """Add *route* below *prefix*.

        Raises:
            ValueError: the path has a route for this method already.
        """
        node = self._root
        for segment in _split(prefix + route.path):
            if not segment.startswith("{"):
                node = node.literals.setdefault(segment, _Node())
            elif segment.endswith(":path}"):
                node.rest = node = node.rest or _Node()
            else:
                node.parameter = node = node.parameter or _Node()
        if route.method in node.routes:
            raise ValueError(f"{route.method} {prefix}{route.path} is declared twice")
        node.routes[route.method] = route

    def find(self, raw_path: str) -> Match | None:
        """Return the routes of *raw_path*, which is still percent-encoded, or None."""
        if not raw_path.startswith("/"):
            return None
        node, values = self._root, list[str]()
        segments = _split(raw_path)
        for index, segment in enumerate(segments):
            if segment == "":
                return None
            text = unquote(segment, errors="surrogateescape")
            if text in node.literals:
                node = node.literals[text]
            elif node.parameter is not None:
                node = node.parameter
                values.append(text)
            elif node.rest is not None:
                rest = "/".join(segments[index:])
                return Match(node.rest.routes, (*values, unquote(rest, errors="surrogateescape")))
            else:
                return None
        return Match(node.routes, values) if node.routes else None


def _split(path: str) -> list[str]:
    """Split a path into segments; one slash at the end does not count."""
    body = path[1:-1] if path.endswith("/") and len(path) > 1 else path[1:]
    return body.split("/") if body else []
