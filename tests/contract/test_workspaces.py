"""beyond.md §10 over a real socket: the records and who may."""

import os
from typing import Any

import pytest
from sqlalchemy import insert

from pipelit.store import schema
from tests.kit.canvas import START
from tests.kit.rooms import Rooms, rooms
from tests.kit.store import migrated, store, store_url

__all__ = ["migrated", "rooms", "store", "store_url"]

NOT_FOUND = (404, "Workspace not found.")
ADMIN_ONLY = (403, "Admin access required.")
RAW = {"source": "raw", "value": None, "credential_id": None, "credential_field": None}


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
                    {"key": "A=B"},
                    {"key": ""},
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
                "body.env_vars[2].key: must match ^[^=]+$",
                "body.env_vars[3].key: must match ^[^=]+$",
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
