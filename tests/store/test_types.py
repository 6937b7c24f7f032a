"""The two column types of our own, on both databases."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL, Column, Integer, MetaData, Table, func, insert, select, text
from sqlalchemy.dialects import sqlite

from pipelit.store.database import Purpose, open_engine
from pipelit.store.types import Json, UtcDateTime

_values = Table(
    "typed_values",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime),
    Column("body", Json),
)
_DIALECT = sqlite.dialect()
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab\0é\n"), inner),
    max_leaves=8,
)


def test_instants_and_json_survive_the_database(url: URL) -> None:
    """What goes in comes out: microseconds, number types, key order, NUL; None is SQL NULL."""
    at = datetime(2025, 1, 15, 10, 30, 0, 123456, UTC)
    body = {"b": 1, "a": 1.0, "text": "\0 é 𝄞", "list": [None, True, 10**18]}
    engine = open_engine(url, Purpose.MIGRATE)
    with engine.begin() as connection:
        _values.create(connection)
        connection.execute(insert(_values).values(id=1, at=at, body=body))
        connection.execute(insert(_values).values(id=2, at=at + timedelta(microseconds=1)))

        first = connection.execute(select(_values).where(_values.c.at <= at)).one()
        latest = connection.scalar(select(func.max(_values.c.at)))
        nulls = connection.scalar(text("SELECT count(*) FROM typed_values WHERE body IS NULL"))
    engine.dispose()

    assert first.at == at
    assert first.at.tzinfo is UTC
    assert first.body == body
    assert list(first.body) == ["b", "a", "text", "list"]
    assert type(first.body["b"]) is int
    assert type(first.body["a"]) is float
    assert latest == at + timedelta(microseconds=1)
    assert nulls == 1


@given(
    st.datetimes(
        datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(timezone(timedelta(hours=5)))
    )
)
def test_every_instant_survives(at: datetime) -> None:
    """Any aware time comes back as the same instant in UTC, to the microsecond."""
    column = UtcDateTime()

    stored = column.process_bind_param(at, _DIALECT)

    assert column.process_result_value(stored, _DIALECT) == at


def test_a_naive_datetime_is_refused() -> None:
    """A time without a zone names no instant."""
    with pytest.raises(ValueError, match="naive"):
        UtcDateTime().process_bind_param(datetime(2025, 1, 1), _DIALECT)


@given(_json)
def test_every_json_value_survives(value: object) -> None:
    """Any JSON value comes back equal and of the same type."""
    column = Json()

    read = column.process_result_value(column.process_bind_param(value, _DIALECT), _DIALECT)

    assert read == value
    assert type(read) is type(value)
