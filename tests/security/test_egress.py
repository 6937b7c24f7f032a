"""Attacks through what the server connects to. Contract: engine.md §32."""

import gzip
import zlib

import pytest
import trio

from tests.kit.api import Api
from tests.kit.http_server import Answer, Seen
from tests.kit.site import People, Site
from tests.security.bystander import undisturbed
from tests.security.lab import ATTACK, attack, build, error_of, fail_once, log_of
from tests.security.trap import Trap, open_trap

pytestmark = pytest.mark.slow

INSIDE = {
    "loopback": "http://127.0.0.1:{port}/",
    "loopback_by_name": "http://localhost:{port}/",
    "loopback_short": "http://127.1:{port}/",
    "loopback_hex": "http://0x7f000001:{port}/",
    "loopback_as_a_number": "http://2130706433:{port}/",
    "the_whole_loopback_net": "http://127.99.3.7:{port}/",
    "loopback_6": "http://[::1]:{port}/",
    "unspecified": "http://0.0.0.0:{port}/",
    "unspecified_short": "http://0:{port}/",
    "unspecified_6": "http://[::]:{port}/",
    "mapped_loopback": "http://[::ffff:127.0.0.1]:{port}/",
    "mapped_loopback_hex": "http://[::ffff:7f00:1]:{port}/",
    "compatible_loopback": "http://[::127.0.0.1]:{port}/",
    "nat64_loopback": "http://[64:ff9b::7f00:1]:{port}/",
    "local_nat64_loopback": "http://[64:ff9b:1::7f00:1]:{port}/",
    "6to4_loopback": "http://[2002:7f00:1::]:{port}/",
    "teredo_loopback": "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]:{port}/",
    "private_10": "http://10.0.0.1/",
    "private_172": "http://172.16.0.1/",
    "private_192": "http://192.168.0.1/",
    "unique_local_6": "http://[fd00::1]/",
    "link_local": "http://169.254.1.1/",
    "link_local_6": "http://[fe80::1]/",
    "shared": "http://100.64.0.1/",
    "multicast": "http://224.0.0.1/",
    "broadcast": "http://255.255.255.255/",
    "benchmarking": "http://198.18.0.1/",
    "documentation": "http://192.0.2.1/",
    "reserved": "http://240.0.0.1/",
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "metadata_of_alibaba": "http://100.100.100.200/",
    "metadata_of_oracle": "http://192.0.0.192/",
    "metadata_6": "http://[fd00:ec2::254]/",
    "metadata_by_nat64": "http://[64:ff9b::a9fe:a9fe]/",
    "metadata_as_a_number": "http://2852039166/",
}

NO_URLS = {
    "a_file": "file:///etc/passwd",
    "gopher": "gopher://127.0.0.1:6379/_FLUSHALL",
    "ftp": "ftp://127.0.0.1/",
    "a_user": "http://user@127.0.0.1/",
    "a_password": "http://example.com:80@127.0.0.1:{port}/",
    "a_backslash": "http://example.com\\@127.0.0.1:{port}/",
    "a_second_line": "http://127.0.0.1:{trap}/ HTTP/1.1\r\nX-Evil: 1\r\n\r\n",
    "a_port_of_a_name": "http://127.0.0.1:99999/",
    "nothing": "",
    "loopback_with_a_dot": "http://localhost.:{port}/",
    "loopback_octal": "http://0177.0.0.1:{port}/",
    "full_width_digits": "http://１２７.０.０.１:{port}/",
}


@pytest.fixture
async def fetcher(people: People) -> Api:
    """Olga, whose workflow `fetcher` asks for any URL and follows redirects."""
    if (await people.olga.call("GET", "/workflows/fetcher/")).status_code == 404:
        await build(
            people.olga,
            "fetcher",
            "http_request",
            limit=1,
            url=ATTACK,
            follow_redirects=True,
            headers={"Authorization": "Bearer s3cr3t-of-olga", "Cookie": "a=s3cr3t-of-olga"},
        )
    return people.olga


@pytest.mark.parametrize("url", INSIDE.values(), ids=list(INSIDE))
async def test_a_workflow_does_not_reach(site: Site, fetcher: Api, url: str) -> None:
    """Refused before a byte is sent, in every spelling of the address, and not tried again."""
    port = site.url.rpartition(":")[2]

    detail = await attack(fetcher, "fetcher", url.format(port=port))

    assert error_of(detail) == "EgressBlockedError", detail["error_message"]
    assert len([log for log in detail["logs"] if log["node_id"] == "attack"]) == 1


@pytest.mark.parametrize("url", NO_URLS.values(), ids=list(NO_URLS))
async def test_what_is_no_url_for_the_web_is_not_asked_for(
    site: Site, fetcher: Api, trap: Trap, trap_port: int, url: str
) -> None:
    """Another scheme, somebody's name in it, or a second line."""
    port = site.url.rpartition(":")[2]

    error = await fail_once(fetcher, "fetcher", url.format(port=port, trap=trap_port))

    assert error
    assert trap.seen == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "place", ["{site}/api/v1/auth/me/", "http://169.254.169.254/", "file:///x"]
)
async def test_a_redirect_leads_nowhere_else(
    site: Site, fetcher: Api, trap: Trap, status: int, place: str
) -> None:
    """Every hop is checked anew."""
    location = place.format(site=site.url)
    trap.answer = lambda _: Answer(status, {"location": location})

    await fail_once(fetcher, "fetcher", f"{trap.url}/")

    assert {seen.target for seen in trap.seen} == {"/"}


async def test_a_redirect_without_end_ends(fetcher: Api, trap: Trap) -> None:
    """After five hops."""
    trap.answer = lambda seen: Answer(302, {"location": f"{seen.target}x"})

    await fail_once(fetcher, "fetcher", f"{trap.url}/")

    assert {len(seen.target) for seen in trap.seen} == set(range(1, 7))


async def test_a_redirect_does_not_carry_secrets_away(
    fetcher: Api, trap: Trap, trap_port: int
) -> None:
    """Another name is another origin, even on the same machine: neither key nor cookie goes on."""

    def answer(seen: Seen) -> Answer:
        if seen.headers["host"].startswith("127.0.0.1"):
            return Answer(302, {"location": f"http://localhost:{trap_port}/caught"})
        return Answer(body=b"caught")

    trap.answer = answer

    await attack(fetcher, "fetcher", f"{trap.url}/")

    assert "s3cr3t-of-olga" in str(trap.seen[0].headers)
    assert not any("s3cr3t-of-olga" in str(seen.headers) for seen in trap.seen[1:])


@pytest.mark.parametrize("encoding", ["gzip", "deflate", None])
async def test_an_answer_without_end_is_cut(
    fetcher: Api, bystander: Api, trap: Trap, encoding: str | None
) -> None:
    """The limit counts what comes out of a compressed answer."""
    body = b"\0" * 50_000_000
    packed = {"gzip": lambda: gzip.compress(body, 1), "deflate": lambda: zlib.compress(body, 1)}
    headers = {"content-type": "text/plain", **({"content-encoding": encoding} if encoding else {})}
    sent = packed[encoding]() if encoding else body
    trap.answer = lambda _: Answer(200, headers, sent)

    async with undisturbed(bystander):
        detail = await attack(fetcher, "fetcher", f"{trap.url}/")

    assert len(log_of(detail)["output"]["body"]) <= 262_144


async def test_an_answer_that_does_not_come_is_not_waited_for(
    fetcher: Api, bystander: Api, trap: Trap
) -> None:
    """It holds neither the run beyond its limit nor anybody else."""
    trap.answer = lambda _: Answer(200, {"content-length": "10"}, hang=True)

    run = await fetcher.run("fetcher", text=f"{trap.url}/")
    async with undisturbed(bystander) as rounds:
        await trap.server.arrived.wait()
        await rounds.more()
        with trio.fail_after(10):
            await trap.server.client_left.wait()

    assert (await fetcher.wait_end(run))["error_code"] == "ExecutionTimeoutError"


@pytest.mark.parametrize(
    "headers",
    [{"X-A": "1\r\nX-Evil: 1"}, {"X-A\r\nX-Evil": "1"}, {"X-A": "1\nX-Evil: 1"}],
    ids=["value", "name", "line_feed"],
)
async def test_a_header_stays_one_header(
    people: People, slug: str, trap: Trap, headers: dict[str, str]
) -> None:
    """Line breaks are refused, in names and in values."""
    await build(people.olga, slug, "http_request", limit=1, url=f"{trap.url}/", headers=headers)

    error = await fail_once(people.olga, slug)

    assert error
    assert trap.seen == []


@pytest.mark.parametrize(
    "base_url",
    ["http://169.254.169.254/v1", "http://[fd00:ec2::254]/v1", "http://100.100.100.200/v1"],
)
async def test_a_model_provider_is_not_the_metadata_of_a_cloud(
    people: People, base_url: str
) -> None:
    """Providers may be local; what hands out keys of the machine is none."""
    credential = await people.olga.add_model(base_url)

    result = await people.olga.post(f"/credentials/{credential}/test/")

    assert result["ok"] is False
    assert result["error"] == "Provider address is not allowed"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "http://user:pw@127.0.0.1/",
        "http://a\\@127.0.0.1/",
        "http://x\r\nX-Evil: 1/",
        "javascript:alert(1)",
        "//127.0.0.1/",
    ],
)
async def test_a_credential_points_to_the_web_only(people: People, url: str) -> None:
    """422 when it is stored."""
    detail = {"provider_type": "openai_compatible", "base_url": url}
    body = {"name": "x", "credential_type": "llm", "detail": detail}

    answer = await people.olga.call("POST", "/credentials/", body)

    assert answer.status_code == 422, answer.text


async def test_a_searcher_of_the_attackers_is_not_asked_inside(people: People, slug: str) -> None:
    """`searxng_url` of a node is no way around the gate."""
    async with open_trap() as inside:
        await build(people.olga, slug, "web_search", searxng_url=inside.url, query="x")

        detail = await attack(people.olga, slug)

        assert error_of(detail) == "EgressBlockedError"
        assert inside.seen == []
