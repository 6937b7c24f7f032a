"""beyond.md §10 over a real socket, with real directories."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from pipelit.services.directories import WorkspaceDirectories
from pipelit.services.workspaces import WorkspacesService
from pipelit.store import Store, schema
from pipelit.store.queries.workspaces import insert_workspace
from pipelit.web.call import Services
from pipelit.web.routes import workspaces as routes
from tests.kit.canvas import START, Ticking, insert_people
from tests.kit.served import Served
from tests.kit.store import migrated, store, store_url
from tests.kit.web_server import serving

__all__ = ["migrated", "store", "store_url"]

NOT_FOUND = (404, "Workspace not found.")
ADMIN_ONLY = (403, "Admin access required.")
WRONG_PATH = (400, "Workspace path must be under <data dir>/workspaces/")
PATH_TAKEN = (409, "Workspace path belongs to another workspace.")
RAW = {"source": "raw", "value": None, "credential_id": None, "credential_field": None}


class Rooms(Served, frozen=True, kw_only=True):
    """The server under test; workspace 1 is `default`, Ada's, as first-time setup makes it."""

    root: Path
    store: Store

    async def make(self, name: str = "mine", *, key: str = "bob-key", **fields: object) -> Any:
        """Make a workspace, Bob's unless said otherwise."""
        response = await self.call("POST", "/workspaces/", {"name": name, **fields}, key=key)
        assert response.status_code == 201, response.text
        return response.json()


@pytest.fixture
async def rooms(store: Store, tmp_path: Path) -> AsyncIterator[Rooms]:
    """A running server whose data directory is the test's."""
    root = tmp_path / "workspaces"
    await store.write(insert_people)
    default = {"owner_id": 1, "name": "default", "path": str(root / "default")}
    await store.write(lambda conn: insert_workspace(conn, **default, created_at=START))
    services = Services(WorkspacesService(store, Ticking(), WorkspaceDirectories(root)))
    async with serving(routes.ROUTES, services=services) as running:
        yield Rooms(client=running.client, root=root, store=store)


async def test_a_created_workspace_is_shown_with_every_default(rooms: Rooms) -> None:
    """Its directory is there, closed to others, with `.tmp` in it."""
    response = await rooms.call("POST", "/workspaces/", {"name": "mine", "id": 9})

    assert response.status_code == 201
    assert response.json() == {
        "id": 2,
        "name": "mine",
        "path": str(rooms.root / "mine"),
        "allow_network": False,
        "env_vars": [],
        "created_at": "2026-02-03T08:15:01",
    }
    assert await rooms.get("/workspaces/2/") == response.json()
    assert os.listdir(rooms.root / "mine") == [".tmp"]
    assert (rooms.root / "mine").stat().st_mode & 0o777 == 0o700


async def test_variables_are_shown_with_every_default(rooms: Rooms) -> None:
    """In the order sent; raw values in clear; a credential must exist."""
    await rooms.store.write(_a_credential)
    sent = [
        {"key": "A", "value": "clear", "what": 1},
        {"key": "B", "source": "credential", "credential_id": 7, "credential_field": "api_key"},
    ]

    made = await rooms.make(env_vars=sent)

    del sent[0]["what"]
    assert made["env_vars"] == [{**RAW, **variable} for variable in sent]
    assert (await rooms.get(f"/workspaces/{made['id']}/")) == made


def _a_credential(conn: Any) -> None:
    row = {"id": 7, "name": "C", "credential_type": "llm", "detail": {"clear": {}, "secret": {}}}
    row |= {"created_at": START, "updated_at": START}
    conn.execute(insert(schema.credentials).values(**row))


@pytest.mark.parametrize("source", ["raw", "credential"])
async def test_a_variable_names_no_missing_credential(rooms: Rooms, source: str) -> None:
    """Neither a new workspace nor a changed one; nothing is made."""
    variables = {"env_vars": [{"key": "A", "source": source, "credential_id": 99}]}
    not_found = (404, "Credential not found.")
    made = await rooms.make()

    assert await rooms.refused("POST", "/workspaces/", {"name": "b", **variables}) == not_found
    assert await rooms.refused("PATCH", f"/workspaces/{made['id']}/", variables) == not_found
    assert not (rooms.root / "b").exists()


@pytest.mark.parametrize(
    ("method", "path", "body", "problems"),
    [
        ("POST", "/workspaces/", {}, ["body.name: field required"]),
        *(
            (
                "POST",
                "/workspaces/",
                {"name": name},
                ["body.name: must match ^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"],
            )
            for name in ("", ".hidden", "a/b", "..", "x" * 101, "a b", "a\n")
        ),
        (
            "POST",
            "/workspaces/",
            {
                "name": "a",
                "path": None,
                "allow_network": None,
                "env_vars": [
                    {"source": "env"},
                    {"key": None, "value": 1, "credential_id": "1", "credential_field": 1},
                ],
            },
            [
                "body.path: must not be null",
                "body.allow_network: must not be null",
                "body.env_vars[0].key: field required",
                "body.env_vars[0].source: must be one of: raw, credential",
                "body.env_vars[1].key: must not be null",
                "body.env_vars[1].value: must be a string",
                "body.env_vars[1].credential_id: must be an integer",
                "body.env_vars[1].credential_field: must be a string",
            ],
        ),
        (
            "PATCH",
            "/workspaces/1/",
            {"allow_network": 1},
            ["body.allow_network: must be a boolean"],
        ),
        ("GET", "/workspaces/x/", None, ["path.workspace_id: must be an integer"]),
        ("GET", "/workspaces/?limit=-1", None, ["query.limit: must be >= 0"]),
        ("POST", "/workspaces/batch-delete/", {}, ["body.ids: field required"]),
        (
            "POST",
            "/workspaces/batch-delete/",
            {"ids": [1] * 1001},
            ["body.ids: must have at most 1000 items"],
        ),
    ],
)
async def test_a_wrong_request_is_explained(
    rooms: Rooms, method: str, path: str, body: dict[str, Any] | None, problems: list[str]
) -> None:
    """All problems come together in the contract's words."""
    refused = await rooms.refused(method, path, body)

    assert refused == (422, {"validation_errors": problems})


async def test_names_are_unique_over_all_users(rooms: Rooms) -> None:
    """Somebody else's name is taken too; a deleted workspace frees its own, and its files stay."""
    made = await rooms.make("one", key="ada-key")
    (rooms.root / "one" / "file").touch()
    body = {"name": "one"}

    refused = await rooms.refused("POST", "/workspaces/", body)
    deleted = await rooms.call("DELETE", f"/workspaces/{made['id']}/", key="ada-key")
    again = await rooms.make("one")

    assert refused == (409, "Workspace with this name already exists.")
    assert deleted.status_code == 204
    assert again["id"] > made["id"]
    assert (rooms.root / "one" / "file").exists()


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


async def test_the_network_is_for_admins_to_open(rooms: Rooms) -> None:
    """Others may close it; a refused creation makes nothing."""
    made = await rooms.make()
    path = f"/workspaces/{made['id']}/"
    wanted = {"allow_network": True}

    assert await rooms.refused("POST", "/workspaces/", {"name": "b", **wanted}) == ADMIN_ONLY
    assert await rooms.refused("PATCH", path, wanted) == ADMIN_ONLY
    assert not (rooms.root / "b").exists()

    opened = await rooms.call("PATCH", path, wanted, key="ada-key")
    assert opened.json() == made | wanted
    closed = await rooms.call("PATCH", path, {"allow_network": False})
    assert closed.json() == made
    assert (await rooms.make("c", key="ada-key", **wanted))["allow_network"] is True


async def test_a_change_moves_only_what_was_sent(rooms: Rooms) -> None:
    """Null and nothing mean unchanged; variables are replaced whole; name and path are fixed."""
    made = await rooms.make(env_vars=[{"key": "A"}, {"key": "B"}])
    path = f"/workspaces/{made['id']}/"

    for unchanged in (
        {},
        {"allow_network": None, "env_vars": None},
        {"name": "other", "path": "/etc"},
    ):
        answer = await rooms.call("PATCH", path, unchanged)
        assert (answer.status_code, answer.json()) == (200, made)

    changed = await rooms.call("PATCH", path, {"env_vars": [{"key": "C", "value": "v"}]})
    assert changed.json() == made | {"env_vars": [{**RAW, "key": "C", "value": "v"}]}


@pytest.mark.parametrize("target", ["1", "99", "9223372036854775807"])
@pytest.mark.parametrize(
    ("method", "rest", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {}),
        ("PATCH", "", {"allow_network": True}),
        ("DELETE", "", None),
        ("POST", "reset/", None),
        ("POST", "reset-rootfs/", None),
    ],
)
async def test_somebody_elses_workspace_is_not_there(
    rooms: Rooms, method: str, rest: str, body: dict[str, Any] | None, target: str
) -> None:
    """Ada's is for Bob what none at all is."""
    assert await rooms.refused(method, f"/workspaces/{target}/{rest}", body) == NOT_FOUND


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("POST", "batch-delete/"),
        ("GET", "1/"),
        ("PATCH", "1/"),
        ("DELETE", "1/"),
        ("POST", "1/reset/"),
        ("POST", "1/reset-rootfs/"),
    ],
)
async def test_nobody_enters_without_a_key(rooms: Rooms, method: str, path: str) -> None:
    """Every route wants a Bearer token."""
    refused = await rooms.refused(method, f"/workspaces/{path}", key="wrong")

    assert refused == (401, "Invalid or missing API key.")


async def test_the_list_is_ones_own_oldest_first(rooms: Rooms) -> None:
    """An admin's is everybody's; it is paged."""
    first, second = await rooms.make("b"), await rooms.make("a")

    assert await rooms.get("/workspaces/") == {"items": [first, second], "total": 2}
    assert await rooms.get("/workspaces/?limit=1&offset=1") == {"items": [second], "total": 2}
    everything = await rooms.get("/workspaces/?limit=2", key="ada-key")
    assert [one["name"] for one in everything["items"]] == ["default", "b"]
    assert everything["total"] == 3


async def test_an_admin_reaches_every_workspace(rooms: Rooms) -> None:
    """Bob's as well."""
    made = await rooms.make()
    path = f"/workspaces/{made['id']}/"

    assert await rooms.get(path, key="ada-key") == made
    assert (await rooms.call("POST", f"{path}reset/", key="ada-key")).status_code == 200
    assert (await rooms.call("DELETE", path, key="ada-key")).status_code == 204


async def test_a_deleted_workspace_leaves_its_files(rooms: Rooms) -> None:
    """Only the record goes."""
    made = await rooms.make()

    response = await rooms.call("DELETE", f"/workspaces/{made['id']}/")

    assert (response.status_code, response.content) == (204, b"")
    assert await rooms.refused("GET", f"/workspaces/{made['id']}/") == NOT_FOUND
    assert (rooms.root / "mine" / ".tmp").is_dir()


async def test_the_default_workspace_stays(rooms: Rooms) -> None:
    """Not even an admin deletes it; a batch skips it."""
    refused = await rooms.refused("DELETE", "/workspaces/1/", key="ada-key")
    batch = await rooms.call("POST", "/workspaces/batch-delete/", {"ids": [1]}, key="ada-key")

    assert refused == (403, "Cannot delete the default workspace.")
    assert batch.status_code == 204
    assert (await rooms.get("/workspaces/1/", key="ada-key"))["name"] == "default"


async def test_many_are_deleted_at_once(rooms: Rooms) -> None:
    """Those of others and unknown ids are skipped, duplicates are one."""
    mine, kept = await rooms.make("a"), await rooms.make("b")
    theirs = await rooms.make("c", key="ada-key")
    ids = [mine["id"], theirs["id"], 99, mine["id"]]

    response = await rooms.call("POST", "/workspaces/batch-delete/", {"ids": ids})

    assert response.status_code == 204
    everything = await rooms.get("/workspaces/", key="ada-key")
    assert [one["name"] for one in everything["items"]] == ["default", "b", "c"]
    assert kept["name"] == "b"


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
