"""The client against real sockets: what it refuses, follows, reads and closes."""

import gzip
from ipaddress import ip_address

import httpx2
import pytest
import trio

from pipelit.net.egress import EgressBlocked, EgressPolicy
from pipelit.net.http import HttpClient, HttpError, HttpRequest, redirect
from pipelit.net.resolver import ResolveError, SystemResolver
from pipelit.net.transport import check_url
from tests.kit.http_server import Answer, serve


class NamedHosts:
    """A resolver that knows only what the test says; counts the questions."""

    def __init__(self, **hosts):
        self._hosts = hosts
        self.asked = []

    async def resolve(self, host):
        await trio.lowlevel.checkpoint()
        self.asked.append(host)
        if host not in self._hosts:
            raise ResolveError(f"cannot resolve '{host}'")
        return tuple(map(ip_address, self._hosts[host]))


def open_to(*ports):
    return EgressPolicy.parse([f"127.0.0.1:{port}" for port in ports])


async def test_an_allowed_address_answers():
    """A listed host:port is reached; status, lower-case headers and body come back."""
    async with serve(lambda _: Answer(201, {"X-One": "1"}, b"hello")) as server:
        client = HttpClient(open_to(server.port), "workflow")

        response = await client.request(
            HttpRequest(method="POST", url=f"{server.url}/a?b=c", headers={"X-Y": "z"}, body=b"in")
        )

    assert (response.status, response.body, response.truncated) == (201, b"hello", False)
    assert response.headers["x-one"] == "1"
    assert server.seen[0].target == "/a?b=c"
    assert server.seen[0].headers["x-y"] == "z"
    assert server.seen[0].body == b"in"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "localhost"])
async def test_every_spelling_of_loopback_is_refused_before_a_byte_is_sent(host):
    """The check sees what the system resolver makes of a literal, and nothing is connected."""
    async with serve(lambda _: Answer()) as server:
        client = HttpClient(EgressPolicy(), "workflow")

        with pytest.raises(EgressBlocked) as caught:
            await client.request(HttpRequest(method="GET", url=f"http://{host}:{server.port}/"))

    assert str(caught.value) in (
        f"blocked address: {host} (127.0.0.1)",
        f"blocked address: {host} (::1)",
    )
    assert server.seen == []


async def test_providers_may_be_local():
    """The provider column reaches loopback, through the raw client too."""
    async with serve(lambda _: Answer(body=b"ok")) as server:
        client = HttpClient(EgressPolicy(), "provider")

        direct = await client.request(HttpRequest(method="GET", url=server.url))
        async with client.raw_client(timeout=5) as raw:
            through_sdk = await raw.get(server.url)

    assert (direct.body, through_sdk.content) == (b"ok", b"ok")


async def test_the_raw_client_is_checked_and_ignores_proxies(monkeypatch):
    """An SDK cannot reach what its column refuses, and no environment proxy is asked."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    client = HttpClient(EgressPolicy(), "provider", resolver=NamedHosts(meta=["169.254.169.254"]))

    async with client.raw_client() as raw:
        with pytest.raises(EgressBlocked, match=r"blocked address: meta \(169.254.169.254\)"):
            await raw.get("http://meta/")
        with pytest.raises(httpx2.InvalidURL):
            await raw.get("http://user:secret@meta/")


async def test_the_socket_goes_to_the_checked_address_not_to_the_name():
    """A host is resolved exactly once; rebinding between check and connect is impossible."""
    async with serve(lambda _: Answer(body=b"ok")) as server:
        resolver = NamedHosts(svc=["127.0.0.1"])
        client = HttpClient(EgressPolicy(), "provider", resolver=resolver)

        response = await client.request(HttpRequest(method="GET", url=f"http://svc:{server.port}/"))

    assert response.body == b"ok"
    assert resolver.asked == ["svc"]
    assert server.seen[0].headers["host"] == f"svc:{server.port}"


async def test_a_listed_name_opens_its_addresses_on_its_port_only():
    """`name:port` opens what the name resolves to, under any name, on no other port."""
    async with serve(lambda _: Answer(body=b"ok")) as server:
        resolver = NamedHosts(listed=["127.0.0.1"], alias=["127.0.0.1"])
        policy = EgressPolicy.parse([f"listed:{server.port}", "gone:1"])
        client = HttpClient(policy, "workflow", resolver=resolver)

        response = await client.request(
            HttpRequest(method="GET", url=f"http://alias:{server.port}/")
        )
        for port in (server.port + 1, 1):
            with pytest.raises(EgressBlocked):
                await client.request(HttpRequest(method="GET", url=f"http://alias:{port}/"))

    assert response.body == b"ok"


async def test_every_hop_of_a_redirect_is_checked_anew():
    """A redirect into a refused address is refused like a first request."""

    def answer(seen):
        return Answer(302, {"location": "http://10.0.0.1/secret"})

    async with serve(answer) as server:
        client = HttpClient(open_to(server.port), "workflow")

        with pytest.raises(EgressBlocked, match=r"blocked address: 10.0.0.1 \(10.0.0.1\)"):
            await client.request(HttpRequest(method="GET", url=server.url, max_redirects=5))

    assert len(server.seen) == 1


async def test_redirects_are_followed_only_on_request_and_at_most_five_times():
    """Without `max_redirects` a redirect is the answer; the sixth hop is too many."""

    def answer(seen):
        left = int(seen.target.strip("/") or 0)
        return Answer(302, {"location": f"/{left - 1}"}) if left else Answer(body=b"end")

    async with serve(answer) as server:
        client = HttpClient(open_to(server.port), "workflow")

        plain = await client.request(HttpRequest(method="GET", url=f"{server.url}/1"))
        five = await client.request(
            HttpRequest(method="GET", url=f"{server.url}/5", max_redirects=5)
        )
        with pytest.raises(HttpError) as caught:
            await client.request(HttpRequest(method="GET", url=f"{server.url}/6", max_redirects=9))

    assert plain.status == 302
    assert five.body == b"end"
    assert caught.value.code == "TooManyRedirects"


def test_secrets_do_not_cross_origins():
    """Authorization and Cookie stay within scheme, host and port; the rest travels."""
    headers = {"Authorization": "a", "Cookie": "c", "X-Keep": "k"}
    request = httpx2.Request("GET", "http://one.example/x", headers=headers)

    same = redirect(request, 302, "/y")
    other = redirect(request, 302, "https://one.example/y")

    assert same.headers["authorization"] == "a"
    assert same.headers["cookie"] == "c"
    assert "authorization" not in other.headers
    assert "cookie" not in other.headers
    assert other.headers["x-keep"] == "k"
    assert other.headers["host"] == "one.example"


@pytest.mark.parametrize(
    ("method", "status", "expected", "keeps_body"),
    [
        ("POST", 301, "GET", False),
        ("POST", 302, "GET", False),
        ("PUT", 303, "GET", False),
        ("HEAD", 303, "HEAD", True),
        ("POST", 307, "POST", True),
        ("POST", 308, "POST", True),
        ("PUT", 302, "PUT", True),
    ],
)
def test_redirects_change_methods_as_browsers_do(method, status, expected, keeps_body):
    """Only 303 and a redirected POST turn into a GET without a body."""
    request = httpx2.Request(method, "http://one.example/", content=b"body")

    following = redirect(request, status, "/next")

    assert expected == following.method
    assert (b"body" if keeps_body else b"") == following.content


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "file:///etc/passwd",
        "host/path",
        "http://",
        "http://user:pw@host/",
        "http://user@host/",
        "http://host/\r\nX: y",
        "http://host/\0",
        "http://host:99999/",
    ],
)
async def test_urls_that_must_not_be_sent_are_refused(url):
    """Other schemes, user info, control characters and bad ports never reach the resolver."""
    resolver = NamedHosts()
    client = HttpClient(EgressPolicy(), "workflow", resolver=resolver)

    with pytest.raises(HttpError) as caught:
        await client.request(HttpRequest(method="GET", url=url))

    assert caught.value.code in ("InvalidURL", "UnsupportedProtocol")
    assert "pw" not in str(caught.value)
    assert resolver.asked == []


async def test_headers_with_line_breaks_are_refused():
    """CR, LF or NUL in a header name or value is an error, not a second header."""
    client = HttpClient(EgressPolicy(), "workflow", resolver=NamedHosts())

    for headers in ({"X": "a\r\nY: b"}, {"X\n": "a"}, {"X": "\0"}, {"": "a"}, {"X Y": "a"}):
        with pytest.raises(HttpError) as caught:
            await client.request(HttpRequest(method="GET", url="http://h/", headers=headers))
        assert caught.value.code == "LocalProtocolError"


async def test_configured_headers_replace_the_defaults_and_may_hold_any_text():
    """A header of the request wins over the client's own; text travels as UTF-8."""
    async with serve(lambda _: Answer()) as server:
        client = HttpClient(open_to(server.port), "workflow")

        await client.request(
            HttpRequest(method="GET", url=server.url, headers={"Accept": "a/b", "X": "ü"})
        )

    assert server.seen[0].headers["accept"] == "a/b"
    assert server.seen[0].headers["x"].encode("latin-1").decode() == "ü"


async def test_the_limit_counts_decoded_bytes_and_stops_the_reading():
    """A compression bomb is cut at the limit of what it decodes to."""
    bomb = gzip.compress(b"x" * 50_000_000)

    async with serve(lambda _: Answer(headers={"content-encoding": "gzip"}, body=bomb)) as server:
        client = HttpClient(open_to(server.port), "workflow")

        cut = await client.request(HttpRequest(method="GET", url=server.url, max_bytes=1000))

    assert (len(cut.body), cut.truncated) == (1000, True)


async def test_a_body_of_exactly_the_limit_is_whole():
    """The limit is inclusive."""
    async with serve(lambda _: Answer(body=b"x" * 10)) as server:
        client = HttpClient(open_to(server.port), "workflow")

        response = await client.request(HttpRequest(method="GET", url=server.url, max_bytes=10))

    assert (len(response.body), response.truncated) == (10, False)


async def test_a_silent_server_costs_no_more_than_the_timeout():
    """The timeout covers the whole answer, and the socket is closed."""
    async with serve(lambda _: Answer(hang=True, body=b"begin")) as server:
        client = HttpClient(open_to(server.port), "workflow")

        with pytest.raises(HttpError) as caught, trio.fail_after(5):
            await client.request(HttpRequest(method="GET", url=server.url, timeout=0.05))
        with trio.fail_after(5):
            await server.client_left.wait()

    assert caught.value.code == "TimeoutException"


async def test_cancelling_closes_the_socket_at_once():
    """A cancelled request leaves no connection behind: the server sees it go."""
    async with serve(lambda _: Answer(hang=True, body=b"begin")) as server:
        client = HttpClient(open_to(server.port), "workflow")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                client.request, HttpRequest(method="GET", url=server.url, timeout=60)
            )
            await server.arrived.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await server.client_left.wait()


async def test_failures_carry_the_class_name_of_the_http_client():
    """A refused connection and an unknown name are both `ConnectError` with a reason."""
    client = HttpClient(EgressPolicy(), "provider", resolver=NamedHosts(here=["127.0.0.1"]))

    for url in ("http://here:1/", "http://nowhere/"):
        with pytest.raises(HttpError) as caught:
            await client.request(HttpRequest(method="GET", url=url))
        assert caught.value.code == "ConnectError"
        assert str(caught.value)


async def test_the_next_address_is_tried_when_one_does_not_answer():
    """All addresses of a host are tried in order."""
    async with serve(lambda _: Answer(body=b"ok")) as server:
        client = HttpClient(
            EgressPolicy(), "provider", resolver=NamedHosts(two=["127.0.0.9", "127.0.0.1"])
        )

        response = await client.request(HttpRequest(method="GET", url=f"http://two:{server.port}/"))

    assert response.body == b"ok"


async def test_the_system_resolver_knows_literals_and_names_what_it_cannot_find():
    """Odd spellings of an address are resolved; a host that cannot exist is an error."""
    resolver = SystemResolver()

    assert await resolver.resolve("0x7f.1") == (ip_address("127.0.0.1"),)
    with pytest.raises(ResolveError, match="cannot resolve"):
        await resolver.resolve("a" * 70 + ".invalid")


def test_a_good_url_passes_unchanged():
    """Checking a URL changes nothing of it."""
    assert str(check_url("https://[2606:4700::1]:8443/a%20b?c=d")) == (
        "https://[2606:4700::1]:8443/a%20b?c=d"
    )


async def test_each_refusal_is_told_with_its_caller() -> None:
    """For the metrics; what was allowed is not."""
    told: list[str] = []
    resolver = NamedHosts(inner=["10.0.0.1"])
    client = HttpClient(EgressPolicy(), "workflow", resolver=resolver, on_blocked=told.append)
    try:
        with pytest.raises(EgressBlocked):
            await client.request(HttpRequest(method="GET", url="http://inner/"))
    finally:
        await client.aclose()

    assert told == ["workflow"]
