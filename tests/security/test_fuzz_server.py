"""Nothing that a stranger sends makes the server fail, hang, or lose its composure.

Raw bytes over real sockets: HTTP requests and WebSocket frames, from well-formed to noise.
"""

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.checklist import endpoints
from tests.kit.hostile import JSON_TOKENS, fuzz, soup
from tests.kit.server_process import ServerProcess, free_port
from tests.kit.site import Site, run_site

pytestmark = pytest.mark.slow

QUIET = 0.3
"""Seconds without a byte after which the server is taken to wait for the rest."""

UNKNOWN_HTTP = {b"501", b"505"}
"""The answers to another transfer coding and another version."""

SPOILS = ("/users/", "/auth/token", "login-verify")
"""Would take the caller's key away, or is slow on purpose."""

PATHS = sorted({row.path for row in endpoints().values() if not any(s in row.path for s in SPOILS)})
METHODS = (
    "GET",
    "POST",
    "PATCH",
    "DELETE",
    "PUT",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "get",
    "",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server of this module alone, which tells of every failed connection."""
    directory = tmp_path_factory.mktemp("fuzz")
    environ = {"PIPELIT_LOG_LEVEL": "DEBUG", "PIPELIT_LOG_FORMAT": "json"}
    with run_site(ServerProcess(directory, free_port(), environ)) as running:
        yield running


def complaints(log: Path) -> Iterator[str]:
    """Yield the lines in which the server says that it is at fault, or that a task broke."""
    for line in log.read_text().splitlines():
        told = json.loads(line)
        broke = told["event"] == "connection failed" and "ProtocolError" not in line
        if told["level"] in {"error", "critical"} or broke:
            yield line


SEGMENT = soup(*"/.%?#&=+;:@ ", "%00", "%2e%2e", "%ff", "%zz", "a", "1", "-1", "9" * 30, "é")
TARGET = st.builds(
    lambda path, values, query: _filled(path, values) + query,
    st.sampled_from(PATHS),
    st.lists(SEGMENT.map(lambda text: text[:200]), min_size=4, max_size=4),
    st.sampled_from(["", "?limit=-1", "?limit=1&offset=9999999999999999999", "?%00=%ff", "?a&&=&"]),
)
HEADER = st.sampled_from(
    [
        "Content-Type: application/json", "Content-Type: text/plain", "Content-Length: 5",
        "Content-Length: -1", "Content-Length: 5, 5", "Content-Length: 99999999999999999999",
        "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Expect: 100-continue",
        "Connection: close", "Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c",
        "Idempotency-Key: a", "Idempotency-Key: " + "k" * 300, "X-Request-ID: \x00", "Range: x",
        "Host: b", "Authorization: Bearer", "Authorization: Bearer \xff", "Cookie: a=b", ": x",
        "No colon", " folded", "Content-Encoding: gzip", "Accept: text/event-stream",
        "Last-Event-ID: 99999999999999999999", "X-Forwarded-For: 1.2.3.4", "X-Long: " + "x" * 9000,
    ]
)  # fmt: skip
BODY = st.one_of(
    st.binary(max_size=100),
    soup(*JSON_TOKENS, '"name":', '"ids":').map(lambda text: text.encode(errors="replace")),
    st.sampled_from([b'5\r\n{"a":\r\n0\r\n\r\n', b"ffffffffff\r\n", b"-1\r\n", b"0\r\nX: y\r\n"]),
)  # fmt: skip


def _filled(path: str, values: list[str]) -> str:
    for value in values:
        before, brace, rest = path.partition("{")
        if brace:
            path = before + value + rest.partition("}")[2]
    return path


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request with the admin's key in `KEY`; its length fits, or it does not."""
    body = draw(BODY)
    lines = [f"{draw(st.sampled_from(METHODS))} {draw(TARGET)} {draw(VERSION)}", "Host: a"]
    if draw(st.booleans()):
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += ["Authorization: Bearer KEY", *draw(st.lists(HEADER, max_size=3))]
    raw = "\r\n".join(lines).encode("utf-8", errors="replace") + b"\r\n\r\n" + body
    if draw(st.integers(0, 4)) == 0 and raw:
        at, noise = draw(st.integers(0, len(raw))), draw(st.binary(max_size=4))
        raw = raw[:at] + noise + raw[at + draw(st.integers(0, 3)) :]
    return raw


VERSION = st.sampled_from(["HTTP/1.1"] * 8 + ["HTTP/1.0", "HTTP/2.0", "HTTP/9", "http/1.1", ""])


def exchange(place: Site, *sent: bytes) -> bytes:
    """Send pieces, each after an answer to the one before, and return all that comes back.

    It ends when the server closes or waits for more.
    """
    address = ("127.0.0.1", int(place.url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=QUIET) as connection:
        got = b""
        with suppress(ConnectionError, TimeoutError):
            for piece in sent[:-1]:
                connection.sendall(piece)
                got += connection.recv(65536)
            connection.sendall(sent[-1])
            while part := connection.recv(65536):
                got += part
        return got


@fuzz
@given(requests())
def test_any_request_gets_an_answer_of_its_own_fault(place: Site, raw: bytes) -> None:
    """Or its connection is closed. Only HTTP itself may be too much for it, which has codes."""
    answer = exchange(place, raw.replace(b"KEY", place.ada.encode()))

    status = answer.split(b" ", 2)[1:2]
    if status and status[0] not in UNKNOWN_HTTP:
        assert 100 <= int(status[0]) < 500, answer[:500]


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame: any opcode and flags, a length that fits or lies, masked or not."""
    payload = draw(
        st.binary(max_size=130)
        | soup(*JSON_TOKENS, '{"type":"subscribe","channel":"execution:a","since":', '"batch"')
        .map(lambda t: t.encode(errors="replace"))
        | st.sampled_from(['{"type":"ping"}', '{"type":"subscribe","channel":"workflow:x"}'])
        .map(str.encode)
    )  # fmt: skip
    opcode = draw(st.sampled_from([1, 1, 1, 1, 2, 0, 8, 9, 10, 3, 15]))
    first = draw(st.sampled_from([0x80, 0x80, 0x80, 0, 0xC0, 0xF0])) | opcode
    length = draw(st.sampled_from([len(payload)] * 6 + [0, 125, 2**16, 2**40, 2**63]))
    mask = draw(st.sampled_from([0x80] * 5 + [0]))
    if length < 126:
        head = struct.pack("!BB", first, mask | length)
    elif length < 2**16:
        head = struct.pack("!BBH", first, mask | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask | 127, length)
    return head + (b"\0\0\0\0" if mask else b"") + payload


CLOSE = b"\x88\x82\0\0\0\0" + struct.pack("!H", 1000)


def upgrade(key: str) -> bytes:
    """Return a request for a socket."""
    return (
        f"GET /ws/?token={key} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


@fuzz
@given(st.lists(frames(), min_size=1, max_size=5))
def test_any_frames_are_taken_ignored_or_end_their_socket(place: Site, sent: list[bytes]) -> None:
    """Never with 1011: that would be the server's fault."""
    answer = exchange(place, upgrade(place.ada), b"".join(sent) + CLOSE)

    assert answer.startswith(b"HTTP/1.1 101"), answer[:200]
    assert struct.pack("!H", 1011) not in answer


@pytest.mark.parametrize("key", ["wrong", "right"])
def test_frames_before_the_upgrade_are_refused_quietly(place: Site, key: str) -> None:
    """They come with the request, which no client may do."""
    answer = exchange(place, upgrade(place.ada if key == "right" else key) + CLOSE)

    assert answer.startswith((b"HTTP/1.1 101", b"HTTP/1.1 400")), answer[:200]


@fuzz
@given(st.binary(max_size=300))
def test_noise_is_refused(place: Site, raw: bytes) -> None:
    """Of any kind."""
    answer = exchange(place, raw + b"\r\n\r\n")

    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 50")), answer[:200]


def test_the_server_is_well_afterwards(place: Site) -> None:
    """It answers, nothing is stuck, and its log tells of no failure of its own."""
    key = {"Authorization": f"Bearer {place.ada}"}
    info = httpx2.get(f"{place.url}/api/v1/system/info/", headers=key, trust_env=False)

    assert info.json()["stuck_executions"] == 0
    assert list(complaints(place.server.log)) == []
