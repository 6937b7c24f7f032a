"""No route exists without a word on who may call it. Contract: README.md §2."""

from typing import Any

import pytest
import trio

from pipelit.assembly.web import API_ROUTES, ROOT_ROUTES
from pipelit.web.call import Call
from pipelit.web.routing import Auth, CustomAuth, Route
from tests.kit.checklist import endpoints
from tests.kit.web_server import make_app

OPEN = {
    ("GET", "/auth/setup-status/"),
    ("POST", "/auth/setup/"),
    ("POST", "/auth/token/"),
    ("POST", "/auth/mfa/login-verify/"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
}
"""Everything that a stranger may call; whoever adds to it has thought about it."""


async def nothing(_call: Call) -> None:
    """Answer nothing."""


def test_a_route_without_auth_cannot_be_made() -> None:
    """Routes are made at import: the server does not start."""
    unsaid: Any = Route
    with pytest.raises(TypeError, match="auth"):
        unsaid("GET", "/things/", nothing, section="things", summary="List things.")


@pytest.mark.parametrize("auth", [None, "", "none", False, "admin"])
def test_an_auth_that_is_none_of_ours_is_refused(auth: Any) -> None:
    """A slip of the pen never opens a route."""
    with pytest.raises(TypeError, match="every route declares its auth"):
        Route("GET", "/things/", nothing, auth=auth, section="things", summary="List things.")


def test_only_these_are_open_to_strangers() -> None:
    """Custom checks count as closed: each has tests of its own."""
    found = {
        (route.method, route.path)
        for route in (*API_ROUTES, *ROOT_ROUTES)
        if route.auth is Auth.NONE
    }
    assert found == OPEN


def test_custom_checks_are_few_and_named() -> None:
    """The gateway's, a webhook's, the scraper's."""
    found = {
        route.auth.name
        for route in (*API_ROUTES, *ROOT_ROUTES)
        if isinstance(route.auth, CustomAuth)
    }
    assert found == {"gateway", "webhook", "metrics"}


def test_admin_routes_are_those_of_the_checklist() -> None:
    """No more and no fewer."""
    wanted = {row.shape for row in endpoints().values() if row.auth == "A"}
    found = {(route.method, path_shape(route)) for route in API_ROUTES if route.auth is Auth.ADMIN}
    assert found == wanted


def path_shape(route: Route) -> str:
    names = (f"{{{name}{suffix}}}" for name in route.parameters for suffix in ("", ":int", ":path"))
    path = "/api/v1" + route.path
    for name in names:
        path = path.replace(name, "{}")
    return path.rstrip("/")


def test_the_framework_brings_no_routes_of_its_own() -> None:
    """No static files, no error pages: what is not declared is not there."""
    app = make_app(stopping=trio.Event())

    assert list(app.url_map.iter_rules()) == []
