"""Texts of strangers that try to write the log themselves. Contract: operations.md §1."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.kit.site import People, Site

pytestmark = pytest.mark.slow

FORGED = '{"level": "error", "event": "forged"}'
ESCAPE = "\x1b[2J\x1b]0;title\x07"


def lines(path: Path) -> Iterator[Any]:
    """Return the records of the log, each of which must be one line of JSON."""
    for line in path.read_bytes().splitlines():
        yield json.loads(line)


def expect_whole(site: Site) -> None:
    """Check that nobody wrote a record or a control character into the log."""
    raw = site.server.log.read_bytes()
    assert b"\x1b" not in raw
    assert b"\r" not in raw
    assert not any(record.get("event") == "forged" for record in lines(site.server.log))


@pytest.mark.parametrize("path", [f"/%0a{FORGED}", "/%1b[2J", "/%0d%0a", "/%00", "/%e2%80%a8x"])
async def test_a_path_stays_one_field(people: People, site: Site, path: str) -> None:
    """It is logged as it was sent, percent signs and all."""
    await people.anyone.call(
        "GET", path.replace("{", "%7B").replace('"', "%22").replace(" ", "%20")
    )

    expect_whole(site)


@pytest.mark.parametrize("request_id", ["a b", "x" * 65, '"}', "a;b", "\x0b"])
async def test_a_request_id_is_no_text(people: People, site: Site, request_id: str) -> None:
    """What does not match is replaced."""
    host, _, port = site.url.removeprefix("http://").partition(":")
    head = (
        f"GET /api/v1/auth/setup-status/ HTTP/1.1\r\nHost: x\r\nX-Request-ID: {request_id}\r\n\r\n"
    )
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(head.encode())
        answer = await stream.receive_some(4096)

    assert request_id.encode() not in answer
    expect_whole(site)


@pytest.mark.parametrize("text", [f"\n{FORGED}\n", ESCAPE, "\u2028", "\x85", "\r\n"])
async def test_a_name_stays_one_field(people: People, site: Site, slug: str, text: str) -> None:
    """Of a user who tries to log in, of a workflow, of an error."""
    await people.anyone.call("POST", "/auth/token/", {"username": text, "password": "x"})
    await people.olga.call("POST", "/workflows/", {"name": text, "slug": text})
    await people.olga.call("GET", f"/workflows/{slug}/", None, user_agent="x")

    expect_whole(site)


async def test_a_node_that_fails_with_a_forged_line_fails_only(
    people: People, site: Site, slug: str
) -> None:
    """The message of an error is a value."""
    rule = {"id": "a", "field": "x", "operator": f"\n{FORGED}\n{ESCAPE}"}
    await people.olga.build(
        slug,
        {
            "start": ("trigger_manual", {}),
            "fail": ("switch", {"extra_config": {"rules": [rule]}}),
        },
        "start -> fail",
    )

    detail = await people.olga.wait_end(await people.olga.run(slug))

    assert detail["status"] == "failed"
    expect_whole(site)


async def test_a_key_in_a_url_is_not_logged(people: People, site: Site, slug: str) -> None:
    """Neither that of a webhook nor that of a socket."""
    await people.anyone.call("POST", f"/webhooks/{slug}?api_key=k3y-in-the-url", {})
    await people.anyone.call("GET", "/auth/me/?token=k3y-in-the-url")

    assert "k3y-in-the-url" not in site.server.log.read_text()
