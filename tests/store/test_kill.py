"""The promise that matters most: what was acknowledged survives `kill -9`."""

import subprocess
import sys

import pytest
from sqlalchemy import URL

from pipelit.store.database import Purpose, open_engine
from tests.store.items import names

_ACKNOWLEDGED = 2000

# 64 tasks write as fast as they can and print each name once its write has returned.
_CHILD = """
import sys, trio
from pipelit.store import Store
from pipelit.store.database import parse_database_url
from tests.store.items import add

async def client(store, number):
    count = 0
    while True:
        print(await store.write(add(f"{number}-{count}")), flush=True)
        count += 1

async def main(url):
    store = Store(parse_database_url(url))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        for number in range(64):
            nursery.start_soon(client, store, number)

trio.run(main, sys.argv[1])
"""


@pytest.mark.slow
def test_kill_9_under_full_load_loses_no_acknowledged_unit(items_url: URL) -> None:
    """Every unit whose `write` returned is there after the kill, and none is there twice."""
    address = items_url.render_as_string(hide_password=False).replace("+pysqlite", "")
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, address], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline().strip() for _ in range(_ACKNOWLEDGED)]
        child.kill()
        # What the pipe still holds was acknowledged too; a last line may be cut off.
        rest = child.stdout.read()
        acknowledged += rest[: rest.rfind("\n") + 1].split()

    engine = open_engine(items_url, Purpose.READ)
    with engine.connect() as connection:
        stored = names(connection)
    engine.dispose()

    assert len(acknowledged) >= _ACKNOWLEDGED
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))
