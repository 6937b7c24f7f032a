"""The probes and the documentation. Contract: health.md, operations.md §3."""

import pytest
import trio

from pipelit.web.call import Services
from pipelit.web.request import BodyInbox, Head
from pipelit.web.routes.system import ROUTES, HealthChecks, describe
from tests.kit.web_server import make_app, serving


async def passes():
    return True


async def fails():
    return False


async def explodes():
    raise OSError("no space left")


async def hangs():
    await trio.sleep_forever()
    return True


def checks(database=passes, broker=None, readiness="ready"):
    return HealthChecks(
        version="0.1.0", database=database, broker=broker, readiness=lambda: readiness
    )


async def ask(path, given, method="GET"):
    services = Services(given, describe([], ROUTES, version="0.1.0"))
    async with serving(root=ROUTES, services=services) as server:
        return await server.client.request(method, path)


@pytest.mark.parametrize(
    ("database", "broker", "status", "redis"),
    [
        (passes, None, "ok", None),
        (passes, passes, "ok", True),
        (fails, None, "degraded", None),
        (explodes, passes, "degraded", True),
        (passes, fails, "degraded", False),
        (passes, explodes, "degraded", False),
    ],
)
async def test_health_is_always_200_and_says_what_fails(database, broker, status, redis):
    """Exactly four fields."""
    answer = await ask("/health", checks(database, broker))
    assert answer.status_code == 200
    assert answer.json() == {
        "status": status,
        "version": "0.1.0",
        "redis": redis,
        "database": database is passes,
    }


async def test_checks_that_hang_count_as_failed_after_2_s(autojump_clock):
    """Both at once: two hanging checks take no longer than one."""
    app = make_app(root=ROUTES, services=Services(checks(hangs, hangs)), stopping=trio.Event())
    head = Head(method="GET", raw_path="/health", query={}, headers={}, peer="127.0.0.1")
    answer = await app.dispatcher.answer(head, BodyInbox(0))
    assert b'"status":"degraded"' in answer.content
    assert trio.current_time() == 2.0


async def test_health_answers_head():
    """For probes that want no body."""
    answer = await ask("/health", checks(), "HEAD")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("state", ["starting", "stopping", "overloaded"])
async def test_not_ready_is_503_with_retry_after(state):
    """And says why."""
    answer = await ask("/ready", checks(readiness=state))
    assert (answer.status_code, answer.json()) == (503, {"status": state})
    assert answer.headers["retry-after"] == "1"


async def test_ready_is_200():
    """The server takes work."""
    answer = await ask("/ready", checks())
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/openapi.json", "application/json"), ("/docs", "text/html; charset=utf-8")],
)
async def test_the_documentation_needs_no_key(path, media_type):
    """For programs and for people."""
    answer = await ask(path, checks())
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert "/health" in answer.text
