"""Every message of the contract's table, and the rules of bodies. Contract: README.md §3, §4."""

import json
from typing import Annotated, Any, Literal

import pytest
import trio
from pydantic import AfterValidator, Field

from pipelit.errors import BadRequest, Invalid
from pipelit.web.call import Call
from pipelit.web.decode import RawParts, decode
from pipelit.web.models import (
    BatchIds,
    BooleanText,
    FreeObject,
    IdempotencyHeaders,
    Instant,
    Int64,
    Integer,
    ListQuery,
    LongText,
    Name,
    Number,
    RequestModel,
    Slug,
    TagFilter,
    changes,
    problem,
)
from pipelit.web.routing import Auth, Route

Tag = Annotated[str, Field(min_length=1, max_length=50)]


def reserved(slug: str) -> str:
    if slug == "node-types":
        raise problem("is reserved")
    return slug


class Inner(RequestModel):
    x: Int64


class Everything(RequestModel):
    """One field of every kind."""

    name: Name
    slug: Annotated[Slug, AfterValidator(reserved)] = "a"
    text: LongText = ""
    count: Int64 = 0
    interval: Annotated[int, Integer(1, 86_400)] = 1
    price: Annotated[Number, Field(gt=0)] = 1.0
    ratio: Annotated[Number, Field(ge=0, le=1)] = 1.0
    active: bool = True
    mode: Literal["fast", "slow", "off"] = "fast"
    tags: Annotated[list[Tag], Field(max_length=50)] = []
    inner: Inner | None = None
    inners: list[Inner] = []
    payload: FreeObject = {}
    when: Instant | None = None


class Search(ListQuery):
    status: Literal["open", "done"] | None = None
    tags: TagFilter = ()
    deep: BooleanText = False


async def handler(call: Call) -> None:
    """Never called here."""


ROUTE = Route(
    "POST",
    "/things/{slug}/{thing_id:int}/",
    handler,
    auth=Auth.NONE,
    section="test",
    summary="Test.",
    body=Everything,
    query=Search,
    headers=IdempotencyHeaders,
)


async def read(body=None, *, raw=None, path=("s", "1"), query=None, headers=None, route=ROUTE):
    """Decode a request; a dict is sent as JSON with a name added."""
    if raw is None:
        raw = json.dumps({"name": "n", **(body or {})}).encode()
    parts = RawParts(path=path, query=query or {}, headers=headers or {}, body=raw)
    return await decode(route, parts, threads=trio.CapacityLimiter(1))


async def problems(*args: Any, **kwargs: Any) -> list[str]:
    with pytest.raises(Invalid) as caught:
        await read(*args, **kwargs)
    return list(caught.value.problems)


BIG = 2**63
MESSAGES = [
    ({"name": None}, "body.name: must not be null"),
    ({"count": None}, "body.count: must not be null"),
    ({"payload": None}, "body.payload: must not be null"),
    ({"tags": [None]}, "body.tags[0]: must not be null"),
    ({"name": 5}, "body.name: must be a string"),
    ({"name": True}, "body.name: must be a string"),
    ({"count": "5"}, "body.count: must be an integer"),
    ({"count": 5.5}, "body.count: must be an integer"),
    ({"count": True}, "body.count: must be an integer"),
    ({"price": "1"}, "body.price: must be a number"),
    ({"price": True}, "body.price: must be a number"),
    ({"active": 1}, "body.active: must be a boolean"),
    ({"active": "true"}, "body.active: must be a boolean"),
    ({"payload": []}, "body.payload: must be an object"),
    ({"inner": "x"}, "body.inner: must be an object"),
    ({"inners": [5]}, "body.inners[0]: must be an object"),
    ({"tags": "a"}, "body.tags: must be an array"),
    ({"tags": {}}, "body.tags: must be an array"),
    ({"mode": "warp"}, "body.mode: must be one of: fast, slow, off"),
    ({"mode": 5}, "body.mode: must be one of: fast, slow, off"),
    ({"interval": 0}, "body.interval: must be >= 1"),
    ({"interval": 86_401}, "body.interval: must be <= 86400"),
    ({"price": 0}, "body.price: must be > 0"),
    ({"ratio": -1}, "body.ratio: must be >= 0"),
    ({"ratio": 1.5}, "body.ratio: must be <= 1"),
    ({"count": BIG}, f"body.count: must be <= {BIG - 1}"),
    ({"count": -BIG - 1}, f"body.count: must be >= {-BIG}"),
    ({"count": 1e300}, f"body.count: must be <= {BIG - 1}"),
    ({"payload": {"deep": [BIG]}}, f"body.payload.deep[0]: must be <= {BIG - 1}"),
    ({"name": ""}, "body.name: must be at least 1 characters"),
    ({"name": "n" * 256}, "body.name: must be at most 255 characters"),
    ({"text": "t" * 100_001}, "body.text: must be at most 100000 characters"),
    ({"tags": ["t"] * 51}, "body.tags: must have at most 50 items"),
    ({"tags": ["a", "", "c"]}, "body.tags[1]: must be at least 1 characters"),
    ({"name": " \t\n"}, "body.name: must not be blank"),
    ({"slug": "No"}, "body.slug: must match ^[a-z0-9][a-z0-9_-]{0,254}$"),
    ({"slug": "a\n"}, "body.slug: must match ^[a-z0-9][a-z0-9_-]{0,254}$"),
    ({"when": "soon"}, "body.when: must be an ISO 8601 datetime"),
    ({"when": "2026-13-01T00:00:00"}, "body.when: must be an ISO 8601 datetime"),
    ({"when": "0001-01-01T00:00:00+14:00"}, "body.when: must be an ISO 8601 datetime"),
    ({"when": 5}, "body.when: must be a string"),
    ({"name": "a\0b"}, "body.name: must be valid text"),
    ({"name": "\ud800"}, "body.name: must be valid text"),
    ({"text": "\udfff"}, "body.text: must be valid text"),
    ({"payload": {"a": ["\0"]}}, "body.payload.a[0]: must be valid text"),
    ({"payload": {"\0": 1}}, "body.payload: must be valid text"),
    ({"slug": "node-types"}, "body.slug: is reserved"),
    ({"inner": {}}, "body.inner.x: field required"),
    ({"inners": [{"x": 1}, {"x": "1"}]}, "body.inners[1].x: must be an integer"),
]
TABLE = [
    "field required",
    "must not be null",
    "must be a string",
    "must be an integer",
    "must be a number",
    "must be a boolean",
    "must be an object",
    "must be an array",
    "must be one of: ",
    "must be >= ",
    "must be <= ",
    "must be > ",
    "must be at least ",
    "must be at most ",
    "must have at most ",
    "must not be blank",
    "must match ",
    "must be an ISO 8601 datetime",
    "must be valid text",
    "is reserved",
]


@pytest.mark.parametrize(("body", "message"), MESSAGES, ids=[m for _, m in MESSAGES])
async def test_each_mistake_has_its_message(body, message):
    """Exactly one sentence for one mistake, in the contract's words."""
    assert await problems(body) == [message]


@pytest.mark.parametrize("message", TABLE)
def test_every_message_of_the_table_is_tested(message):
    """The list above leaves none of the contract's messages out."""
    assert any(f": {message}" in expected for _, expected in MESSAGES)


async def test_an_empty_body_is_a_missing_field():
    """Not malformed: it is absent."""
    assert await problems(raw=b"") == ["body: field required"]


@pytest.mark.parametrize("raw", [b"[]", b"5", b"null", b'"x"', b"true"])
async def test_the_top_level_must_be_an_object(raw):
    """Whatever else JSON allows there."""
    assert await problems(raw=raw) == ["body: must be an object"]


async def test_an_optional_body_may_be_empty():
    """It counts as `{}`, and only then."""
    route = Route(
        "POST", "/x/", handler, auth=Auth.NONE, section="test", summary="Test.",
        body=ListlessBody, body_optional=True,
    )  # fmt: skip
    decoded = await read(raw=b"", path=(), route=route)
    assert decoded.body == ListlessBody()
    assert await problems(raw=b"null", path=(), route=route) == ["body: must be an object"]


class ListlessBody(RequestModel):
    note: str = ""


def nested(depth):
    return b'{"name":"n","payload":' + b'{"a":' * (depth - 1) + b"1" + b"}" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b" ",
        b"{'a': 1}",
        b'{"name": "n",}',
        b'{"name": NaN}',
        b'{"name": "n", "unknown": Infinity}',
        b'{"name": "n", "unknown": -Infinity}',
        b'{"name": "n", "unknown": 1e999}',
        b'{"name": "\xff"}',
        b'\xef\xbb\xbf{"name": "n"}',
        '{"name": "n"}'.encode("utf-16"),
        nested(101),
        b'{"name": "n", "payload": ' + b"[" * 100_000 + b"}",
        b'{"name": "n", "unknown": ' + b"1" * 4001 + b"}",
        b'{"name": "n", "unknown": -' + b"1" * 4001 + b"}",
        b'{"name": "tab\there"}',
    ],
)
async def test_what_is_not_json_is_400(raw):
    """One answer for everything the strict loader refuses, unknown fields included."""
    with pytest.raises(BadRequest, match=r"Malformed JSON body\."):
        await read(raw=raw)


@pytest.mark.parametrize(
    "raw", [nested(100), b'{"name": "n", "unknown": ' + b"1" * 4000 + b"}", b' {"name": "n"}\r\n']
)
async def test_the_limits_of_json_themselves_are_allowed(raw):
    """100 levels, 4000 digits in a field nobody reads."""
    assert (await read(raw=raw)).body.name == "n"


async def test_a_body_over_64_kib_is_read_the_same_way():
    """It only happens in a thread."""
    assert (await read({"text": "t" * 90_000})).body.text == "t" * 90_000
    with pytest.raises(BadRequest):
        await read(raw=b'{"name": "' + b"n" * 90_000)


async def test_numbers_convert_where_nothing_is_lost():
    """A whole float is an integer, an integer is a number."""
    body = (await read({"count": 5.0, "price": 5, "interval": 3e2})).body
    assert (body.count, body.price, body.interval) == (5, 5.0, 300)
    assert type(body.count) is int
    assert type(body.price) is float


async def test_the_limits_of_64_bits_themselves_are_allowed():
    """Signed 64 bits, both ends, also inside free objects."""
    for number in (BIG - 1, -BIG):
        assert (await read({"count": number, "payload": {"n": number}})).body.count == number


async def test_unknown_fields_are_ignored_whatever_they_hold():
    """Also what no known field could hold."""
    assert (await read({"id": 7, "junk": "\0", "more": 2**70})).body.name == "n"


@pytest.mark.parametrize(
    "body", [{"inner": {"x": 1, "junk": "\0"}}, {"inners": [{"x": 1, "more": 2**70, "\0": "\0"}]}]
)
async def test_unknown_fields_of_inner_objects_are_ignored_alike(body):
    """However deep the model that does not know them."""
    assert (await read(body)).body.name == "n"


async def test_known_fields_of_inner_objects_are_clean():
    """Wrong ones are told with their place."""
    assert await problems({"inner": {"x": 2**70}, "payload": {"junk": "\0"}}) == [
        f"body.inner.x: must be <= {BIG - 1}",
        "body.payload.junk: must be valid text",
    ]


async def test_text_is_never_trimmed_and_free_objects_stay_as_sent():
    """Byte-identical."""
    sent = {"name": " n\u00e9\n", "payload": {"b": 1, "a": [None, 1.5, {"\u00fc": True}]}}
    body = (await read(sent)).body
    assert body.name == sent["name"]
    assert json.dumps(body.payload) == json.dumps(sent["payload"])


async def test_of_duplicate_keys_the_last_wins():
    """As in every common parser."""
    assert (await read(raw=b'{"name": "a", "name": "b"}')).body.name == "b"


async def test_instants_become_utc():
    """With `Z`, an offset, or nothing."""
    for text in ("2026-01-15T10:30:00Z", "2026-01-15T11:30:00+01:00", "2026-01-15T10:30:00"):
        when = (await read({"when": text})).body.when
        assert when.isoformat() == "2026-01-15T10:30:00+00:00"


async def test_absent_and_null_differ():
    """PATCH changes what was sent, and nothing else."""
    assert changes((await read({"when": None, "count": 0})).body) == {
        "name": "n",
        "when": None,
        "count": 0,
    }


async def test_all_problems_of_a_request_are_reported_together():
    """Path, query, header and body, in this order."""
    found = await problems(
        {"interval": 0, "tags": ["a", "b", ""]},
        path=("s", "x"),
        query={"limit": "1001", "offset": "-1", "status": "lost"},
        headers={"idempotency-key": "k" * 201},
    )
    assert found == [
        "path.thing_id: must be an integer",
        "query.limit: must be <= 1000",
        "query.offset: must be >= 0",
        "query.status: must be one of: open, done",
        "header.Idempotency-Key: must be at most 200 characters",
        "body.interval: must be >= 1",
        "body.tags[2]: must be at least 1 characters",
    ]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"limit": ""}, "query.limit: must be an integer"),
        ({"limit": "5.0"}, "query.limit: must be an integer"),
        ({"limit": " 5"}, "query.limit: must be an integer"),
        ({"limit": "\u0665"}, "query.limit: must be an integer"),
        ({"limit": "x"}, "query.limit: must be an integer"),
        ({"limit": "1" * 5000}, "query.limit: must be an integer"),
        ({"deep": "maybe"}, "query.deep: must be a boolean"),
        ({"tags": ",".join("t" * 21)}, "query.tags: must have at most 20 items"),
        ({"tags": "a\0"}, "query.tags: must be valid text"),
        ({"status": "\udcff"}, "query.status: must be valid text"),
    ],
)
async def test_mistakes_in_a_query(query, message):
    """Values are text, read strictly."""
    assert await problems(query=query) == [message]


async def test_an_empty_filter_is_no_filter():
    """`?status=` asks for everything; unknown parameters are ignored."""
    query = (await read(query={"status": "", "tags": "a,, b,", "deep": "TRUE", "x": "\0"})).query
    assert (query.status, query.tags, query.deep) == (None, ("a", " b"), True)
    assert (query.limit, query.offset) == (50, 0)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "must be at least 1 characters"),
        ("k" * 201, "must be at most 200 characters"),
        ("k\u00e9y", "must be valid text"),
        ("k\ty", "must be valid text"),
    ],
)
async def test_idempotency_keys_are_printable_ascii(key, message):
    """1 to 200 characters."""
    found = await problems(headers={"idempotency-key": key})
    assert found == [f"header.Idempotency-Key: {message}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "must be an integer"),
        ("1.0", "must be an integer"),
        ("", "must be an integer"),
        (str(BIG), f"must be <= {BIG - 1}"),
        ("1\0", "must be valid text"),
    ],
)
async def test_integers_in_a_path(text, message):
    """Anything else is 422, not 404."""
    assert await problems(path=("s", text)) == [f"path.thing_id: {message}"]


async def test_a_slug_with_a_nul_is_refused_before_the_store_sees_it():
    """Databases do not take it."""
    assert await problems(path=("a\0", "1")) == ["path.slug: must be valid text"]


async def test_batch_ids_are_at_most_1000_and_duplicates_are_one():
    """For every batch-delete."""

    class Batch(RequestModel):
        ids: BatchIds

    route = Route(
        "POST", "/b/", handler, auth=Auth.NONE, section="test", summary="Test.", body=Batch
    )
    decoded = await read(raw=b'{"ids": [3, 1, 3]}', path=(), route=route)
    assert decoded.body.ids == [3, 1]
    too_many = json.dumps({"ids": list(range(1001))}).encode()
    found = await problems(raw=too_many, path=(), route=route)
    assert found == ["body.ids: must have at most 1000 items"]
