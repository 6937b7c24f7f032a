"""Requests that are small to send and large to read. Contract: README.md §3, §8, engine.md §31."""

import json
from typing import Any

import pytest
import trio

from tests.kit.api import Api
from tests.kit.site import People, Site
from tests.security.bystander import undisturbed
from tests.security.lab import attack, build, error_of

pytestmark = pytest.mark.slow

JSON = {"Content-Type": "application/json"}
LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
)

BODIES = {
    "deep_lists": (b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    "deep_objects": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400),
    "deep_without_end": (b"[" * 1_000_000, 400),
    "a_huge_integer": (b'{"name": ' + b"9" * 900_000 + b"}", 400),
    "a_huge_exponent": (b'{"name": 1e999999999}', 400),
    "not_a_number": (b'{"name": NaN}', 400),
    "a_million_keys": (b"{" + b",".join(b'"%d":1' % n for n in range(80_000)) + b"}", 422),
    "the_same_key": (b"{" + b",".join([b'"a":1'] * 150_000) + b"}", 422),
    "a_long_list": (b'{"name": [' + b"1," * 400_000 + b"1]}", 422),
    "a_long_name": (b'{"name": "' + b"x" * 1_000_000 + b'"}', 422),
    "a_lone_surrogate": (b'{"name": "\\ud800", "slug": "x"}', 422),
    "a_nul": (b'{"name": "a\\u0000", "slug": "x"}', 422),
    "bad_utf_8": (b'{"name": "\xff\xfe"}', 400),
    "utf_16": ('{"name": "x"}'.encode("utf-16"), 400),
    "too_large": (b'{"name": "' + b"x" * 2_000_000 + b'"}', 413),
    "a_pickle": (b"\x80\x04cos\nsystem\n(S'id'\ntR.", 400),
}

DOCUMENTS = {
    "a_billion_laughs": LAUGHS,
    "an_object_of_python": "name: !!python/object/apply:os.system [id]\nsteps: []",
    "a_module_of_python": "name: !!python/module:os\nsteps: []",
    "a_tag": "name: !evil x\nsteps: []",
    "deep_lists": "name: " + "[" * 50_000,
    "deep_maps": "{a: " * 5_000 + "}" * 5_000,
    "deep_by_indentation": "\n".join(" " * n + "a:" for n in range(600)),
    "an_anchor_in_itself": "name: &a [*a]\nsteps: []",
    "many_merges": "a: &a {x: 1}\nb: {" + ", ".join(["<<: *a"] * 200) + "}",
    "many_anchors": "[" + ", ".join(f"&a{n} x" for n in range(30_000)) + "]",
    "a_huge_number": "name: " + "9" * 200_000,
    "sexagesimals": "name: " + ":".join(["59"] * 60_000),
    "infinity": "name: .inf\nsteps: []",
    "too_long": "name: " + "x" * 300_000,
    "many_documents": "---\n" * 60_000,
    "nothing": "",
    "a_text": "x",
    "control_characters": "name: \x07\nsteps: []",
}

HEADS = {
    "a_huge_header": b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: " + b"x" * 300_000 + b"\r\n\r\n",
    "many_headers": b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
    "a_huge_path": b"GET /" + b"x" * 300_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "no_host": b"GET /health HTTP/1.1\r\n\r\n",
    "two_hosts": b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a_header_without_a_name": b"GET /health HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
    "a_folded_header": b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n",
    "two_lengths": b"POST /api/v1/auth/token/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    b"Content-Length: 3\r\n\r\n{}",
    "length_and_chunks": b"POST /api/v1/auth/token/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a_negative_length": b"POST /api/v1/auth/token/ HTTP/1.1\r\nHost: x\r\n"
    b"Content-Length: -1\r\n\r\n",
    "a_bad_chunk": b"POST /api/v1/auth/token/ HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
    "http_2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]) + b"\0" * 64,
    "nothing_but_noise": bytes(range(256)) * 40 + b"\r\n\r\n",
}


async def exchange(site: Site, sent: bytes) -> bytes:
    """Send bytes and return the beginning of the answer; b"" when there is none."""
    host, _, port = site.url.removeprefix("http://").partition(":")
    with trio.fail_after(10):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            try:
                await stream.send_all(sent)
                return bytes(await stream.receive_some(4096))
            except trio.BrokenResourceError:
                return b""


@pytest.mark.parametrize(("body", "status"), BODIES.values(), ids=list(BODIES))
async def test_a_body_does_not_explode(
    people: People, bystander: Api, body: bytes, status: int
) -> None:
    """4xx, whatever it would become in memory."""
    headers = {**JSON, "Authorization": f"Bearer {people.olga.key}"}

    async with undisturbed(bystander):
        answer = await bystander.http.post("/api/v1/workflows/", content=body, headers=headers)

    assert answer.status_code == status, answer.text[:300]
    assert len(answer.content) < 20_000


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=list(DOCUMENTS))
async def test_a_document_does_not_explode(people: People, bystander: Api, document: str) -> None:
    """It is invalid, says why in a few words, and does nothing."""
    before = (await people.olga.get("/workflows/?limit=0"))["total"]

    async with undisturbed(bystander):
        answer = await people.olga.call("POST", "/workflows/validate-dsl/", {"yaml_str": document})

    assert answer.status_code < 500
    if answer.status_code == 200:
        assert answer.json()["valid"] is False
        assert len(answer.content) < 20_000
    assert (await people.olga.get("/workflows/?limit=0"))["total"] == before


@pytest.mark.parametrize("head", HEADS.values(), ids=list(HEADS))
async def test_a_request_that_is_none_gets_no_further(
    site: Site, bystander: Api, head: bytes
) -> None:
    """4xx, 501 or 505 or the end of the connection; one request is never taken for two."""
    async with undisturbed(bystander):
        answer = await exchange(site, head)

    refused = (b"4", b"501", b"505")
    assert not answer or answer.split()[1].startswith(refused), answer
    assert answer.count(b"HTTP/1.1 ") <= 1


async def test_headers_that_drip_hold_nobody_up(site: Site, bystander: Api) -> None:
    """A hundred connections that never finish their requests cost a connection each."""
    host, _, port = site.url.removeprefix("http://").partition(":")
    slow = [await trio.open_tcp_stream(host, int(port)) for _ in range(100)]
    try:
        async with undisturbed(bystander) as rounds:
            for stream in slow:
                await stream.send_all(b"POST /api/v1/auth/token/ HTTP/1.1\r\nHost: x\r\nX: ")
            await rounds.more()
    finally:
        for stream in slow:
            await stream.aclose()


async def test_bodies_that_never_come_hold_nobody_up(site: Site, bystander: Api) -> None:
    """Nor do requests that announce a body and wait."""
    host, _, port = site.url.removeprefix("http://").partition(":")
    slow = [await trio.open_tcp_stream(host, int(port)) for _ in range(100)]
    head = (
        b"POST /api/v1/auth/token/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000000\r\n\r\n{"
    )
    try:
        async with undisturbed(bystander) as rounds:
            for stream in slow:
                await stream.send_all(head)
            await rounds.more()
    finally:
        for stream in slow:
            await stream.aclose()


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("GET /workflows/?limit=1000000", None, 422),
        ("GET /workflows/?offset=99999999999999999999", None, 422),
        ("GET /executions/?tags=" + "a," * 5000, None, 200),
        ("POST /executions/batch-delete/", {"execution_ids": ["x"] * 1001}, 422),
        ("POST /credentials/batch-delete/", {"ids": [1] * 1001}, 422),
        ("POST /epics/", {"title": "x", "tags": ["t"] * 51}, 422),
        ("POST /auth/token/", {"username": "a", "password": "x" * 1025}, 422),
        ("POST /users/me/keys", {"name": "x" * 101}, 422),
    ],
    ids=["a_page", "an_offset", "tags", "ids", "more_ids", "many_tags", "a_password", "a_name"],
)
async def test_numbers_and_lists_have_an_end(
    people: People, path: str, body: object, status: int
) -> None:
    """422, before anything is done."""
    method, _, where = path.partition(" ")

    answer = await people.olga.call(method, where, body)

    assert answer.status_code == status, answer.text[:300]


async def test_a_workflow_that_calls_itself_ends(people: People, bystander: Api, slug: str) -> None:
    """At the tenth level."""
    await people.olga.build(
        slug,
        {
            "start": ("trigger_manual", {}),
            "again": ("workflow", {"extra_config": {"target_workflow": slug}}),
        },
        "start -> again",
        max_execution_seconds=20,
    )
    async with undisturbed(bystander):
        detail = await attack(people.olga, slug)

    assert detail["status"] == "failed"


async def test_a_workflow_that_handles_its_own_errors_by_failing_ends(
    people: People, bystander: Api, slug: str
) -> None:
    """What handles an error starts nothing when it fails itself."""
    await people.olga.build(
        slug,
        {
            "start": ("trigger_manual", {}),
            "trouble": ("trigger_error", {}),
            "fail": ("switch", {"extra_config": {"rules": [{"id": "a", "operator": "x"}]}}),
        },
        "start -> fail, trouble -> fail",
    )
    path = f"/executions/?workflow_slug={slug}"
    async with undisturbed(bystander) as rounds:
        await attack(people.olga, slug)
        with trio.fail_after(10):
            while (await people.olga.get(path))["total"] < 2:
                await trio.lowlevel.checkpoint()  # started after the end of the other
        for item in (await people.olga.get(path))["items"]:
            await people.olga.wait_end(item["execution_id"])
        await rounds.more()

    assert (await people.olga.get(path))["total"] == 2


async def test_a_circle_is_no_graph(people: People, slug: str) -> None:
    """The edge that would close it is refused."""
    await build(people.olga, slug, "code", code="1")
    edge = {"source_node_id": "attack", "target_node_id": "attack"}

    answer = await people.olga.call("POST", f"/workflows/{slug}/edges/", edge)

    assert answer.status_code == 422


async def test_a_loop_over_too_much_ends(people: People, bystander: Api, slug: str) -> None:
    """Its iterations are counted before the first."""
    await people.olga.build(
        slug,
        {
            "start": ("trigger_manual", {}),
            "many": (
                "code",
                {"extra_config": {"language": "template", "code": "{{ trigger.text }}"}},
            ),
            "attack": (
                "loop",
                {"extra_config": {"source_node": "start", "field": "payload.items"}},
            ),
            "body": ("reply_chat", {"extra_config": {"message": "x"}}),
        },
        "start -> many, many -> attack, attack -> body : loop_body, body -> attack : loop_return",
    )
    async with undisturbed(bystander):
        detail = await people.olga.wait_end(await people.olga.run(slug, items=[0] * 2000))

    assert error_of(detail) == "LoopLimitError"


async def test_an_output_too_large_is_not_kept(
    bubblewrap: str, people: People, bystander: Api, slug: str
) -> None:
    """The node fails, and its output is nowhere."""
    await build(people.olga, slug, "code", code="return 'x' * 3_000_000")

    async with undisturbed(bystander):
        detail = await attack(people.olga, slug)

    assert error_of(detail) in {"OutputTooLargeError", "RuntimeError"}
    assert len(json.dumps(detail)) < 100_000


@pytest.mark.parametrize("operator", ["matches_regex", "not_matches_regex"])
@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|aa)+$", "(.*a){25}$", "([a-z]+)*!$", "^(([a-z])+.)+[A-Z]([a-z])+$"]
)
async def test_a_pattern_does_not_backtrack_for_ever(
    people: People, bystander: Api, slug: str, operator: str, pattern: str
) -> None:
    """It ends in linear time or is killed; nobody waits for it."""
    rule = {"id": "a", "field": "trigger.text", "operator": operator, "value": pattern}
    slug = f"{slug[:60]}-{operator}-{abs(hash(pattern)) % 10**9}".replace("_", "-")
    await build(people.olga, slug, "switch", limit=1, rules=[rule])

    async with undisturbed(bystander):
        detail = await attack(people.olga, slug, "a" * 60 + "!b")

    assert detail["status"] in {"completed", "failed"}


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "9**999**9",
        "(" * 400 + "1" + ")" * 400,
        "1" * 600,
        "__import__('os')",
        "1e308*10",
    ],
)
async def test_the_calculator_computes_no_bomb(
    people: People, expression: str, bystander: Api
) -> None:
    """Checked before it is computed, and no Python."""
    if (await people.olga.call("GET", "/workflows/calc/")).status_code == 404:
        await build(people.olga, "calc", "calculator", expression="{{ trigger.text }}")

    async with undisturbed(bystander):
        detail = await attack(people.olga, "calc", expression)

    assert error_of(detail) == "ToolError"


async def test_import_and_validation_do_nothing(people: People, slug: str) -> None:
    """What a document describes is not run, looked up or fetched."""
    step = {"id": "a", "type": "code", "code": "raise SystemExit"}
    document = {"name": slug, "trigger": {"type": "manual"}, "steps": [step]}
    body = {"yaml_str": json.dumps(document)}

    result: Any = await people.olga.post("/workflows/validate-dsl/", body)

    assert "valid" in result
    assert (await people.olga.call("GET", f"/workflows/{slug}/")).status_code == 404
