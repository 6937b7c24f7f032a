"""beyond.md §10 over a real socket: the directories."""

import os
from pathlib import Path

import pytest

from tests.kit.rooms import Rooms, rooms
from tests.kit.store import migrated, store, store_url

__all__ = ["migrated", "rooms", "store", "store_url"]

NOT_FOUND = (404, "Workspace not found.")
WRONG_PATH = (400, "Workspace path must be under <data dir>/workspaces/")
PATH_TAKEN = (409, "Workspace path belongs to another workspace.")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "relative",
        "/etc",
        "{root}",
        "{root}/",
        "{root}/../elsewhere",
        "{root}/a/../..",
        "{root}s/x",
        "{root}/link/x",
        "{root}/file",
        "{root}/file/x",
        "{root}/" + "x" * 256,
        "{root}/" + "x/" * 2500,
    ],
)
async def test_a_path_lies_under_the_workspaces(rooms: Rooms, path: str) -> None:
    """Whatever dots and links say, and nothing is made elsewhere."""
    rooms.root.mkdir()
    (rooms.root / "link").symlink_to(rooms.root.parent)
    (rooms.root / "file").touch()
    before = sorted(os.listdir(rooms.root.parent))

    body = {"name": "mine", "path": path.format(root=rooms.root)}
    refused = await rooms.refused("POST", "/workspaces/", body)

    assert refused == WRONG_PATH
    assert sorted(os.listdir(rooms.root.parent)) == before
    assert (await rooms.get("/workspaces/"))["total"] == 0


async def test_a_path_may_be_chosen_under_the_workspaces(rooms: Rooms) -> None:
    """It is kept as sent, and made with what is missing above it."""
    path = f"{rooms.root}/team/./reports"

    made = await rooms.make("mine", path=path)

    assert made["path"] == path
    assert (rooms.root / "team" / "reports" / ".tmp").is_dir()


@pytest.mark.parametrize("path", ["theirs", "theirs/inside", "deep", "x/../theirs", "alias"])
async def test_no_workspace_lies_in_another(rooms: Rooms, path: str) -> None:
    """Nobody reaches somebody else's files by naming their directory, or one around it."""
    await rooms.make("theirs", key="ada-key")
    await rooms.make("other", key="ada-key", path=f"{rooms.root}/deep/other")
    (rooms.root / "alias").symlink_to(rooms.root / "theirs")

    body = {"name": "mine", "path": f"{rooms.root}/{path}"}
    refused = await rooms.refused("POST", "/workspaces/", body)

    assert refused == PATH_TAKEN


async def test_a_deleted_workspace_leaves_its_files(rooms: Rooms) -> None:
    """Only the record goes."""
    made = await rooms.make()

    response = await rooms.call("DELETE", f"/workspaces/{made['id']}/")

    assert (response.status_code, response.content) == (204, b"")
    assert await rooms.refused("GET", f"/workspaces/{made['id']}/") == NOT_FOUND
    assert (rooms.root / "mine" / ".tmp").is_dir()


async def test_a_reset_empties_the_directory(rooms: Rooms) -> None:
    """Hidden files, closed and very deep directories go; what links point at stays."""
    made = await rooms.make()
    room, outside = rooms.root / "mine", rooms.root.parent / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (room / "link").symlink_to(outside)
    (room / ".tmp" / "old").touch()
    (room / ".hidden").touch()
    _dig(room / "deep", levels=25)
    (room / "closed" / "inner").mkdir(parents=True)
    (room / "closed").chmod(0)

    response = await rooms.call("POST", f"/workspaces/{made['id']}/reset/")

    assert response.status_code == 200
    assert response.json() == {"ok": True, "message": "Workspace 'mine' has been reset."}
    assert os.listdir(room) == [".tmp"]
    assert os.listdir(room / ".tmp") == []
    assert (outside / "precious").exists()


def _dig(place: Path, *, levels: int) -> None:
    """Make directories in each other, deeper than a path can name."""
    name = "d" * 200
    place.mkdir()
    here = os.open(place, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


async def test_a_reset_makes_a_missing_directory(rooms: Rooms) -> None:
    """The default workspace's was never made here."""
    response = await rooms.call("POST", "/workspaces/1/reset/", key="ada-key")

    assert response.status_code == 200
    assert (rooms.root / "default" / ".tmp").is_dir()


@pytest.mark.parametrize("action", ["reset", "reset-rootfs"])
async def test_nothing_is_deleted_outside(rooms: Rooms, action: str) -> None:
    """A directory that became a link out of the workspaces is refused."""
    made = await rooms.make()
    outside = rooms.root.parent / "outside"
    (rooms.root / "mine").rename(outside)
    (rooms.root / "mine").symlink_to(outside)

    refused = await rooms.refused("POST", f"/workspaces/{made['id']}/{action}/")

    assert refused == WRONG_PATH
    assert os.listdir(outside) == [".tmp"]


@pytest.mark.parametrize("exists", [True, False])
async def test_the_rootfs_is_cleared(rooms: Rooms, exists: bool) -> None:
    """The workspace's own files stay; without a rootfs nothing happens."""
    made = await rooms.make()
    room = rooms.root / "mine"
    (room / "file").touch()
    if exists:
        (room / ".rootfs" / "usr").mkdir(parents=True)

    response = await rooms.call("POST", f"/workspaces/{made['id']}/reset-rootfs/")

    assert response.status_code == 200
    assert response.json() == {
        "ok": True,
        "message": "Rootfs cleared for workspace 'mine'. Will be re-created on next execution.",
    }
    assert sorted(os.listdir(room)) == [".tmp", "file"]
