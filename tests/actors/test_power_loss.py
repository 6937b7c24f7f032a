"""The power goes at any moment: what the disk was made to keep is a whole server.

The images are what a kernel may leave: the log cut at its last sync, or with some of what came
after it, or a checkpoint that got half way. Contract: operations.md §5 "Crash".
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from sqlalchemy import URL
from trio.testing import MockClock

from pipelit.nodes.base import Component
from pipelit.store.database import parse_database_url
from tests.kit.tree import Tree, add_people, open_tree

pytestmark = pytest.mark.slow

RUNS = 12
PAGE = 4096
WAL_HEADER, FRAME = 32, 24 + PAGE
SQLITE_FULL_SYNC = 2


class Syncs:
    """Notes how long the log is after each commit, which ends with a sync, and what it holds."""

    def __init__(self, tree: Tree, wal: Path) -> None:
        self.lengths: list[int] = [0]
        self.acknowledged: list[tuple[int, str, str]] = []
        """Length of the log, execution, and the status it was known to have then."""
        self._tree = tree
        self._wal = wal
        self._commit = tree.store._committer.commit
        tree.store._committer.commit = self._note  # type: ignore[method-assign]

    def _note(self, units: Any) -> Any:
        results = self._commit(units)
        self.lengths.append(self._wal.stat().st_size)
        return results

    def know(self, execution_id: str, status: str) -> None:
        """Note what the server has acknowledged."""
        self.acknowledged.append((self.lengths[-1], execution_id, status))

    def known_at(self, length: int) -> dict[str, str]:
        """Return what had been acknowledged when the log was so long."""
        return {
            execution: status for synced, execution, status in self.acknowledged if synced <= length
        }


async def live(tree: Tree, syncs: Syncs) -> None:
    """Accept runs, some of them at the same time, and know the ends of some."""
    for number in range(RUNS):
        if number % 3:
            syncs.know(await tree.start(), "accepted")
        else:
            execution_id = await tree.run()
            syncs.know(execution_id, await tree.status(execution_id))
    await trio.sleep(1)


async def audit(url: URL, clock: MockClock, known: dict[str, str]) -> None:
    """Start a server on an image, and hold it to what was acknowledged."""
    assert url.database is not None
    async with open_tree(url, clock, {}, epoch=2) as tree:
        for execution_id, status in known.items():
            if status == "completed":
                assert await tree.status(execution_id) == status
            await tree.ended(execution_id)
            assert await tree.status(execution_id) == "completed"
            story = await tree.story(execution_id)
            assert (story[0], story[-1]) == ("execution_started", "execution_completed")
            assert len(set(story)) == len(story) == 8
            assert len(await tree.logs(execution_id)) == 3
    with closing(sqlite3.connect(url.database)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


class Images:
    """The files at the end of a life, from which every image is cut."""

    def __init__(self, database: Path, folder: Path) -> None:
        self._database = database.read_bytes()
        self._wal = database.with_name(f"{database.name}-wal").read_bytes()
        self._folder = folder
        self._count = 0

    def cut(self, length: int) -> URL:
        """Leave the log as it was synced."""
        return self._write(self._database, self._wal[:length])

    def tear(self, length: int, draw: Random) -> URL:
        """Leave also some pages of what was written later, others not, in any order."""
        tail = bytearray(self._wal[length : length + draw.randrange(1, 20 * FRAME)])
        for start in range(0, len(tail), PAGE):
            if draw.random() < 0.5:
                tail[start : start + PAGE] = bytes(len(tail[start : start + PAGE]))
        return self._write(self._database, self._wal[:length] + bytes(tail))

    def half_way(self, draw: Random) -> URL:
        """Leave a checkpoint that copied some pages into the database, with the whole log."""
        whole = self._write(self._database, self._wal)
        assert whole.database is not None
        with closing(sqlite3.connect(whole.database)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        new = Path(whole.database).read_bytes()
        old = self._database.ljust(len(new), b"\0")
        pages = [
            (new if draw.random() < 0.5 else old)[start : start + PAGE]
            for start in range(0, len(new), PAGE)
        ]
        return self._write(b"".join(pages), self._wal)

    def _write(self, database: bytes, wal: bytes) -> URL:
        self._count += 1
        path = self._folder / f"image-{self._count}.sqlite3"
        path.write_bytes(database)
        path.with_name(f"{path.name}-wal").write_bytes(wal)
        return parse_database_url(f"sqlite:///{path}")


@pytest.fixture
async def life(
    store_url: URL, clock: MockClock, components: dict[str, Component], tmp_path: Path
) -> tuple[Syncs, Images]:
    """A server's life, and its files as they are in the middle of it."""
    assert store_url.database is not None
    database = Path(store_url.database)
    async with open_tree(store_url, clock, components) as tree:
        syncs = Syncs(tree, database.with_name(f"{database.name}-wal"))
        await add_people(tree.store)
        await tree.workflow("t > a", "a > b")
        await live(tree, syncs)
        mode = await tree.store.write(
            lambda conn: conn.exec_driver_sql("PRAGMA synchronous").scalar_one()
        )
        images = Images(database, tmp_path)
    assert mode == SQLITE_FULL_SYNC, "a commit does not wait for the disk"
    assert syncs.lengths == sorted(syncs.lengths), "the log began anew"
    assert all((length - WAL_HEADER) % FRAME == 0 for length in syncs.lengths[1:])
    return syncs, images


async def test_a_log_cut_at_a_sync_holds_what_was_acknowledged(
    life: tuple[Syncs, Images], clock: MockClock
) -> None:
    syncs, images = life
    assert len(syncs.lengths) > RUNS
    for length in syncs.lengths[2::4]:
        await audit(images.cut(length), clock, syncs.known_at(length))


async def test_torn_writes_after_the_sync_harm_nothing(
    life: tuple[Syncs, Images], clock: MockClock
) -> None:
    syncs, images = life
    draw = Random(7)
    for length in syncs.lengths[2::7]:
        await audit(images.tear(length, draw), clock, syncs.known_at(length))


async def test_a_checkpoint_that_got_half_way_loses_nothing(
    life: tuple[Syncs, Images], clock: MockClock
) -> None:
    syncs, images = life
    for seed in range(3):
        await audit(images.half_way(Random(seed)), clock, syncs.known_at(syncs.lengths[-1]))
