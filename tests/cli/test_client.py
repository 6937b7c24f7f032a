"""The API client, the remembered login, and how refusals become messages and exit codes."""

import stat
from pathlib import Path

import click
import pytest

from pipelit.cli.client import Client, ServerRefusedError, Target, UnreachableError
from pipelit.cli.hints import DEMO_MARKER, LOG_IN, refusal_hint, start_hint
from pipelit.cli.remember import find_target, load_login, login_path, save_login
from tests.cli.fake_server import serving


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, {"detail": "Workflow not found."},
         "Workflow not found.\nSee what there is: `pipelit workflow list`"),
        (422, {"detail": {"validation_errors": ["a: b", "c: d"]}}, "a: b\nc: d"),
        (500, "no json object", "HTTP 500"),
        (401, {"detail": "API key has expired."},
         f"API key has expired.\n{LOG_IN}"),
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


async def test_another_kind_of_server_is_called_one() -> None:
    """A refusal without the contract's `detail` does not come from Pipelit."""
    async with serving() as server, Client.open(server.target) as client:
        server.answer("GET", "/workflows/", 404, {"error": "no such page"})
        with pytest.raises(ServerRefusedError, match="not answer like a Pipelit server"):
            await client.get("/workflows/")


def test_a_demo_that_does_not_run_is_started_again(tmp_path: Path) -> None:
    """Whoever works in the demo's directory is not sent to another server."""
    assert "pipelit serve" in start_hint({"PIPELIT_DIR": str(tmp_path)})
    (tmp_path / DEMO_MARKER).touch()

    hint = start_hint({"PIPELIT_DIR": str(tmp_path)})

    assert f"pipelit demo --serve --data-dir {tmp_path}" in hint


@pytest.mark.parametrize(
    ("status", "detail", "path", "command"),
    [
        (404, "Execution not found.", "/api/v1/executions/x/", "pipelit executions list"),
        (404, "Job not found.", "/api/v1/schedules/x/", "pipelit schedules list"),
        (404, "No chat trigger found.", "/api/v1/workflows/w/chat/", "pipelit run"),
        (404, "No trigger configured for manual execution", "/api/v1/workflows/w/execute/",
         "pipelit chat"),
        (409, "Setup is done.", "/api/v1/auth/setup/", "pipelit login"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_next_command(
    status: int, detail: str, path: str, command: str
) -> None:
    """A second line, where it is known."""
    assert f"`{command}`" in (refusal_hint(status, detail, path, None) or "")


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


def test_this_machine_has_two_names(tmp_path: Path) -> None:
    """A login at 127.0.0.1 is one at localhost, on the same port only."""
    environ = {"PIPELIT_DIR": str(tmp_path)}
    save_login(login_path(environ), Target(url="http://127.0.0.1:8000", key="saved"))

    assert find_target("http://localhost:8000", None, environ).key == "saved"
    assert find_target("http://localhost:8001", None, environ).key == ""
    assert find_target("http://localhost.example:8000", None, environ).key == ""


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
