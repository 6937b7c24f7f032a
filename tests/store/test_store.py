from sqlalchemy import select

from pipelit.store import Store, schema


async def test_a_reader_sees_what_was_committed(store: Store) -> None:
    """What a unit wrote is there for the next read."""
    await store.write(lambda c: c.execute(schema.meta.insert().values(key="a", value="b")).rowcount)

    value = await store.read(lambda c: c.scalar(select(schema.meta.c.value)))

    assert value == "b"
