"""What every route has in common, asked of every route the server declares. README.md §1–§4.

The routes come from the server's own OpenAPI document, so a new one is tested the day it is there.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

from tests.kit.people import problems, refusal
from tests.kit.site import People, Site

pytestmark = pytest.mark.slow

VALUES = {"slug": "no-such-workflow", "node_id": "no_such_node"}
"""What stands for the parameters of a path; integers otherwise."""
BEARER: dict[str, list[str]] = {"bearer": []}
MALFORMED = (
    b"{",
    b"nonsense",
    b'{"a": NaN}',
    b'{"a": "\xff"}',
    b"[" * 101 + b"]" * 101,
    b'{"a": ' + b"9" * 4001 + b"}",
)


@pytest.fixture(scope="module")
def document(site: Site) -> Any:
    """The server's description of itself."""
    return httpx2.get(f"{site.url}/openapi.json", trust_env=False).json()


@pytest.fixture(scope="module")
def routes(document: Any) -> Mapping[str, Mapping[str, Any]]:
    """{path with example values: {method: operation}} of the API."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for template, item in document["paths"].items():
        path = re.sub(r"\{(\w+)\}", lambda match: VALUES.get(match[1], "999999"), template)
        for method, operation in item.items():
            if method in {"get", "post", "patch", "delete", "put"}:
                found[path][method.upper()] = operation
    return {path: methods for path, methods in found.items() if path.startswith("/api/v1/")}


def both_forms(path: str) -> tuple[str, str]:
    return path.rstrip("/"), path.rstrip("/") + "/"


async def test_every_path_works_with_and_without_a_slash(people: People, routes: Any) -> None:
    """Same status, no redirect."""
    key = {"Authorization": f"Bearer {people.ada.key}"}
    for path in (path for path, methods in routes.items() if "GET" in methods):
        answers = [await people.ada.http.get(form, headers=key) for form in both_forms(path)]
        assert answers[0].status_code == answers[1].status_code, path
        assert not answers[0].is_redirect, path
        assert answers[0].json() != {"detail": "Not Found"}, path


async def test_every_protected_route_asks_for_the_key_first(people: People, routes: Any) -> None:
    """Before role, body and target; with `WWW-Authenticate`, like every answer uncached."""
    for path, methods in routes.items():
        for method, operation in methods.items():
            if operation["security"] != [BEARER]:
                continue
            wrong = {"Authorization": "Bearer wrong"}
            for form, headers in zip(both_forms(path), ({}, wrong), strict=True):
                answer = await people.anyone.http.request(
                    method, form, content=b"{", headers=headers
                )
                assert refusal(answer) == (401, "Invalid or missing API key."), (method, path)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.headers["cache-control"] == "no-store"
                assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers["x-request-id"])


async def test_every_get_answers_head(people: People, routes: Any) -> None:
    """Same status and headers, no body."""
    key = {"Authorization": f"Bearer {people.ada.key}"}
    for path, methods in routes.items():
        if "GET" not in methods:
            continue
        got = await people.ada.http.get(path, headers=key)
        head = await people.ada.http.head(path, headers=key)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers.keys() == got.headers.keys(), path
        assert head.headers.get("content-type") == got.headers.get("content-type")


async def test_every_path_tells_its_methods(people: People, routes: Any) -> None:
    """OPTIONS needs no key; a wrong method is 405 before the key is asked for."""
    for path, methods in routes.items():
        allowed = set(methods) | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        for form in both_forms(path):
            options = await people.anyone.http.options(form)
            assert (options.status_code, options.content) == (204, b""), form
            assert set(options.headers["allow"].split(", ")) == allowed, form
        wrong = await people.anyone.http.request("PUT", path)
        assert refusal(wrong) == (405, "Method Not Allowed"), path
        assert set(wrong.headers["allow"].split(", ")) == allowed


async def test_every_body_is_json_of_bounded_size(people: People, routes: Any) -> None:
    """400 for what is none, 415 for another type, 413 over 1 MiB; before anything is looked for."""
    json_type = {"Authorization": f"Bearer {people.ada.key}", "Content-Type": "application/json"}
    for path, methods in routes.items():
        for method, operation in methods.items():
            if "requestBody" not in operation or operation["security"] not in ([], [BEARER]):
                continue  # webhooks and the gateway have tokens and rules of their own
            request = people.ada.http.request
            for content in MALFORMED:
                answer = await request(method, path, content=content, headers=json_type)
                assert refusal(answer) == (400, "Malformed JSON body."), (method, path, content)
            plain = await request(
                method, path, content=b"{}", headers=json_type | {"Content-Type": "text/plain"}
            )
            expected = (415, "Unsupported media type. Use application/json.")
            assert refusal(plain) == expected, (method, path)
            large = await request(
                method, path, content=b'"' + b"x" * 1_048_576 + b'"', headers=json_type
            )
            assert refusal(large) == (413, "Request body too large."), (method, path)
            array = await request(method, path, content=b"[]", headers=json_type)
            assert problems(array) == ["body: must be an object"], (method, path)
            if operation["requestBody"].get("required"):
                empty = await request(method, path, headers=json_type)
                assert problems(empty) == ["body: field required"], (method, path)


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1", "/api/v1/", "/api/v1/nothing/", "/api/v2/workflows/", "/wsx"]
)
async def test_an_unknown_path_is_404(people: People, path: str) -> None:
    """Whoever asks."""
    answer = await people.anyone.http.get(path)

    assert refusal(answer) == (404, "Not Found")
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer {}", 200),
        ("bearer {}", 200),
        ("BEARER {}", 200),
        ("Bearer  {}", 401),
        ("Basic {}", 401),
        ("{}", 401),
        ("Bearer", 401),
    ],
)
async def test_the_key_comes_as_a_bearer(people: People, header: str, status: int) -> None:
    """The scheme in any case, exactly one space."""
    headers = {"Authorization": header.format(people.olga.key)}

    assert (await people.olga.http.get("/api/v1/auth/me/", headers=headers)).status_code == status


async def test_no_other_site_may_read_answers_by_default(people: People) -> None:
    """CORS is off."""
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "GET"}
    for method in ("GET", "OPTIONS"):
        answer = await people.olga.http.request(method, "/api/v1/workflows/", headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_key_opens_what_its_user_may(people: People) -> None:
    """Every user is who the key says."""
    for name, api in (("ada", people.ada), ("olga", people.olga), ("otto", people.otto)):
        assert (await api.get("/auth/me/"))["username"] == name
