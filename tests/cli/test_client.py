"""The API client, the remembered login, and how refusals become messages and exit codes."""

import stat
from pathlib import Path

import click
import pytest

from pipelit.cli.client import Client, ServerRefusedError, Target, UnreachableError
from pipelit.cli.remember import find_target, load_login, login_path, save_login
from tests.cli.fake_server import serving


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, {"detail": "Workflow not found."}, "Workflow not found."),
        (422, {"detail": {"validation_errors": ["a: b", "c: d"]}}, "a: b\nc: d"),
        (500, "no json object", "HTTP 500"),
        (401, {"detail": "API key has expired."},
         "API key has expired.\nLog in with `pipelit login`, or set PIPELIT_API_KEY."),
    ],
)  # fmt: skip
async def test_a_refusal_is_said_in_the_servers_words(
    status: int, body: object, message: str
) -> None:
    """Exit code 1; where it is known what to do next, that is said too."""
    async with serving() as server, Client.open(server.target) as client:
        server.answer("GET", "/workflows/", status, body)
        with pytest.raises(ServerRefusedError) as caught:
            await client.get("/workflows/")

    assert caught.value.message == message
    assert caught.value.exit_code == 1


async def test_no_server_is_another_exit_code() -> None:
    """Exit code 3, and the way to start one."""
    async with Client.open(Target(url="http://127.0.0.1:9", key="k")) as client:
        assert not await client.is_ready()
        with pytest.raises(UnreachableError) as caught:
            await client.get("/workflows/")

    assert caught.value.exit_code == 3
    assert "pipelit serve" in caught.value.message


async def test_an_answer_without_body_is_none() -> None:
    """204 has no JSON."""
    async with serving() as server, Client.open(server.target) as client:
        server.answer("POST", "/x/", 204)

        assert await client.post("/x/") is None


def test_a_remembered_login_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    """The file has mode 0600 from its first moment, its directory 0700."""
    path = tmp_path / "new" / "login.json"
    save_login(path, Target(url="http://h", key="k"))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert load_login(path) == Target(url="http://h", key="k")
    assert list(path.parent.iterdir()) == [path]


def test_flags_beat_the_environment_and_the_environment_the_login(tmp_path: Path) -> None:
    """Without any of them the server is the one of this machine."""
    environ = {"PIPELIT_DIR": str(tmp_path)}
    assert find_target(None, None, environ) == Target(url="http://localhost:8000")

    save_login(login_path(environ), Target(url="http://saved", key="saved"))
    assert find_target(None, None, environ) == Target(url="http://saved", key="saved")

    environ |= {"PIPELIT_URL": "http://env/", "PIPELIT_API_KEY": "env"}
    assert find_target(None, None, environ) == Target(url="http://env", key="env")
    assert find_target("http://flag", "flag", environ) == Target(url="http://flag", key="flag")


def test_a_remembered_key_goes_to_its_own_server_only(tmp_path: Path) -> None:
    """Another --url does not get it."""
    environ = {"PIPELIT_DIR": str(tmp_path)}
    save_login(login_path(environ), Target(url="http://saved", key="saved"))

    assert find_target("http://other", None, environ).key == ""


def test_a_target_never_shows_its_key() -> None:
    """Neither in a traceback nor in a log."""
    assert "geheim" not in repr(Target(url="http://h", key="geheim"))


def test_an_address_without_scheme_is_wrong_usage() -> None:
    """Exit code 2."""
    with pytest.raises(click.UsageError):
        find_target("localhost:8000", None, {})


def test_a_broken_login_file_counts_as_none(tmp_path: Path) -> None:
    """The next login replaces it."""
    path = tmp_path / "login.json"
    path.write_text("{")

    assert load_login(path) is None
