"""Hears every answer a test gets and holds it against what the server declares.

A status, a shape or an error text that the OpenAPI document does not have fails the test that got
it, whatever else the test is about.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import httpx2
import jsonschema_rs

from pipelit.web.dispatch import API_PREFIX
from pipelit.web.matching import RouteTable
from pipelit.web.openapi import build_document
from pipelit.web.routing import Route


class Undeclared(AssertionError):
    """An answer that the document does not promise."""


class Witness:
    """What a server with these routes may answer."""

    def __init__(self, api: Iterable[Route], root: Iterable[Route]) -> None:
        api, root = tuple(api), tuple(root)
        self.document = build_document(api, root, version="0")
        self._table = RouteTable()
        self._operations: dict[Route, Any] = {}
        for prefix, routes in ((API_PREFIX, api), ("", root)):
            for route in routes:
                self._table.add(route, prefix)
                path = prefix + re.sub(r":(int|path)\}", "}", route.path)
                item: Mapping[str, Any] = self.document["paths"][path]
                self._operations[route] = item[route.method.lower()]
        self._validators: dict[tuple[Route, int], jsonschema_rs.Validator] = {}

    async def hear(self, answer: httpx2.Response) -> None:
        """Take one answer; a hook for the client.

        Raises:
            Undeclared: the document says otherwise.
        """
        request = answer.request
        match = self._table.find(request.url.raw_path.decode().partition("?")[0])
        route = match and match.routes.get("GET" if request.method == "HEAD" else request.method)
        if not route:
            return  # 404 and 405 of paths are nobody's
        declared = self._operations[route]["responses"].get(str(answer.status_code))
        said = f"{request.method} {request.url}: {answer.status_code}"
        if declared is None:
            await answer.aread()
            raise Undeclared(f"{said} is not declared: {answer.text[:500]}")
        media = answer.headers.get("content-type", "").partition(";")[0]
        content = declared.get("content", {})
        if (media or None) not in (content or {None: None}):
            raise Undeclared(f"{said} as {media}; declared: {list(content)}")
        if media == "application/json" and request.method != "HEAD":
            await answer.aread()
            self._check_body(route, answer.status_code, content[media], answer.content, said)

    def _check_body(self, route: Route, status: int, content: Any, body: bytes, said: str) -> None:
        value = json.loads(body)
        key = (route, status)
        if key not in self._validators:
            schema = {**content["schema"], "components": self.document["components"]}
            self._validators[key] = jsonschema_rs.Draft202012Validator(schema)
        for error in self._validators[key].iter_errors(value):
            place = "".join(f"[{step!r}]" for step in error.instance_path)
            raise Undeclared(f"{said}: answer{place}: {error.message[:500]}")
        detail = value.get("detail") if status >= 400 else None
        if isinstance(detail, str):
            texts = [example["value"]["detail"] for example in content["examples"].values()]
            if not any(_pattern(text).fullmatch(detail) for text in texts):
                raise Undeclared(f"{said}: {detail!r}; declared: {texts}")


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """Return what an error text stands for: `<name>` in it is anything."""
    return re.compile(".*".join(map(re.escape, re.split(r"<[^>]*>", text))), re.DOTALL)


@cache
def witness_of(*api: Route) -> Witness:
    """Return the witness of a server with these routes below `/api/v1`."""
    return Witness(api, ())


@cache
def product_witness() -> Witness:
    """Return the witness of the whole product."""
    # Loads all of the server: not for tests that run none.
    from pipelit.assembly.web import API_ROUTES, ROOT_ROUTES

    return Witness(API_ROUTES, ROOT_ROUTES)


async def hear_product(answer: httpx2.Response) -> None:
    """Take one answer of the whole product; a hook for the client."""
    await product_witness().hear(answer)
