"""What a process in the sandbox sees, may and leaves behind. Contract: engine.md §29."""

import json
import os
import socket
import time
from pathlib import Path

import pytest
import trio

from pipelit.nodes.base import NodeError
from pipelit.nodes.process import TimedOut
from pipelit.nodes.sandbox import Completed, Job, Sandbox
from tests.kit.sandbox import bubblewrap, command_lines, offering, sleepers
from tests.kit.waiting import until

__all__ = ["bubblewrap"]

NOT_INSTALLED = "No sandbox available. Install bubblewrap (apt install bubblewrap)."


async def run(
    tmp_path: Path,
    script: str,
    *,
    seconds: float = 30,
    allow_network: bool = False,
    skills: Path | None = None,
    **variables: str,
) -> Completed:
    workspace = tmp_path / "room"
    workspace.mkdir(exist_ok=True)
    find = offering(workspace, allow_network=allow_network, variables=variables)
    roots = () if skills is None else (skills,)
    sandbox = Sandbox(find, search_path=os.environ["PATH"], skill_roots=roots)
    job = Job(command=("bash", "-c", script), seconds=seconds)
    return await sandbox.run(job, workflow_id=1, workspace_id=None)


async def refusal(search_path: Path) -> NodeError:
    sandbox = Sandbox(offering(search_path), search_path=str(search_path))
    with pytest.raises(NodeError) as caught:
        await sandbox.run(Job(command=("true",), seconds=1), workflow_id=1, workspace_id=None)
    return caught.value


def install(directory: Path, script: str) -> None:
    program = directory / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)


async def test_without_bubblewrap_nothing_runs(tmp_path: Path) -> None:
    """There is no way around the sandbox; trying again at once is no use."""
    error = await refusal(tmp_path)

    assert (str(error), error.code, error.retryable) == (NOT_INSTALLED, "SandboxUnavailable", False)


async def test_a_bubblewrap_that_cannot_start_is_refused(tmp_path: Path) -> None:
    """The refusal says what it said, and what helps."""
    install(tmp_path, "echo 'bwrap: No permissions.' >&2; exit 1")
    error = await refusal(tmp_path)

    assert str(error) == (
        "Sandbox cannot start: bwrap: No permissions."
        " Allow unprivileged user namespaces for the server."
    )
    assert (error.code, error.retryable) == ("SandboxUnavailable", False)


async def test_a_sandbox_that_fails_later_is_refused_too(tmp_path: Path) -> None:
    """What bubblewrap says of its own failure is never taken for the command's output."""
    install(tmp_path, 'test "$1" = --args || exit 0; echo bwrap: broken >&2; exit 1')
    error = await refusal(tmp_path)

    assert str(error).startswith("Sandbox cannot start: bwrap: broken. ")


async def test_after_a_refusal_it_is_tried_again(tmp_path: Path) -> None:
    """The operator may have installed it; once it works, it is not probed any more."""
    sandbox = Sandbox(offering(tmp_path), search_path=f"{tmp_path}:/usr/bin:/bin")
    job = Job(command=("true",), seconds=1)
    install(tmp_path, f"echo $1 >>{tmp_path}/seen; exit 1")
    for _ in range(2):
        with pytest.raises(NodeError):
            await sandbox.run(job, workflow_id=1, workspace_id=None)
    install(tmp_path, f"echo $1 >>{tmp_path}/seen")
    for _ in range(2):
        with pytest.raises(NodeError):
            await sandbox.run(job, workflow_id=1, workspace_id=None)

    seen = (tmp_path / "seen").read_text().split()
    assert seen == ["--unshare-all"] * 3 + ["--args"] * 2


async def test_a_process_works_in_its_workspace(bubblewrap: str, tmp_path: Path) -> None:
    """It is the home and the working directory; files stay, those in `/tmp` too."""
    await run(tmp_path, "pwd >here; echo $HOME >>here; echo a >/tmp/a")
    again = await run(tmp_path, "cat here /tmp/a")

    assert again.stdout == "/workspace\n/workspace\na\n"
    assert (tmp_path / "room" / "here").exists()
    assert (tmp_path / "room" / ".tmp" / "a").exists()


async def test_the_environment_is_the_contracts_and_the_workspaces(
    bubblewrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the server's; values of variables are there and hidden in what is said."""
    monkeypatch.setenv("FIELD_ENCRYPTION_KEY", "server-secret")
    ended = await run(tmp_path, "env; echo ${#TOKEN}; echo $TOKEN >&2", TOKEN="tok-1234")

    lines = ended.stdout.splitlines()
    environ = dict(line.split("=", 1) for line in lines if "=" in line)
    assert environ.keys() == {
        *("HOME", "PATH", "TMPDIR", "LANG", "PIP_TARGET", "PYTHONPATH", "TOKEN"),
        *("PWD", "SHLVL", "_"),
    }
    assert (environ["LANG"], environ["TMPDIR"]) == ("C.UTF-8", "/tmp")
    assert environ["PYTHONPATH"] == environ["PIP_TARGET"] == "/workspace/.packages"
    assert (environ["TOKEN"], ended.stderr, lines[-1]) == ("****", "****\n", "8")


async def test_no_command_line_shows_a_value(bubblewrap: str, tmp_path: Path) -> None:
    """Every user of the host could read it there."""
    room = tmp_path / "room"
    found: list[bytes] = []

    async def look() -> None:
        await until((room / "up").exists)
        found.extend(command_lines().values())
        (room / "go").touch()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await run(tmp_path, "touch up; until [ -e go ]; do sleep 0.02; done", TOKEN="tok-9876")

    assert any(b"until [ -e go ]" in line for line in found)
    assert not any(b"tok-9876" in line for line in found)


async def test_nothing_else_of_the_host_is_seen(bubblewrap: str, tmp_path: Path) -> None:
    """No files but programs, no processes, no way to write anywhere else, no power."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    ended = await run(
        tmp_path,
        f"cat {secret} /etc/shadow /etc/passwd; touch /x /usr/x /dev/x /etc/x; ls -A /home /root;"
        "grep -h CapEff /proc/self/status; id -u; ls -d /proc/[0-9]* | wc -l",
    )

    lines = ended.stdout.split()
    assert lines[:3] == ["CapEff:", "0000000000000000", "1000"]
    assert int(lines[3]) <= 6
    assert len(ended.stderr.splitlines()) == 9


async def test_the_network_is_off(bubblewrap: str, tmp_path: Path) -> None:
    """Not even the host's loopback answers, and no name is resolved."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"(echo >/dev/tcp/127.0.0.1/{port}) 2>/dev/null || echo closed"
        script = f"{connect}; tail -n +3 /proc/net/dev"
        closed = await run(tmp_path, script)
        opened = await run(tmp_path, script, allow_network=True)

    assert closed.stdout.split()[0] == "closed"
    assert [line.split(":")[0].strip() for line in closed.stdout.splitlines()[1:]] == ["lo"]
    assert not opened.stdout.startswith("closed")


async def test_skills_are_read_only(bubblewrap: str, tmp_path: Path) -> None:
    """Each folder under its name; links are not followed."""
    skills = tmp_path / "skills"
    (skills / "pdf").mkdir(parents=True)
    (skills / "pdf" / "SKILL.md").write_text("how to\n")
    (skills / "away").symlink_to("/etc")
    ended = await run(
        tmp_path,
        "ls /.skill_providers; cat /.skill_providers/pdf/*; touch /.skill_providers/pdf/x",
        skills=skills,
    )

    assert ended.stdout == "pdf\nhow to\n"
    assert "Read-only file system" in ended.stderr


async def test_a_file_cannot_grow_for_ever(bubblewrap: str, tmp_path: Path) -> None:
    """256 MiB is the most; core files are not written."""
    ended = await run(tmp_path, "ulimit -f; ulimit -c; ulimit -u; ulimit -v; truncate -s 257M x")

    assert ended.stdout.split() == ["262144", "0", "256", "1048576"]
    assert ended.exit_code != 0


async def test_memory_is_limited(bubblewrap: str, tmp_path: Path) -> None:
    """One process gets no more than 1 GiB of addresses."""
    ended = await run(tmp_path, "python3 -c 'bytearray(2**30)'")

    assert "MemoryError" in ended.stderr


async def test_output_beyond_the_limit_is_flagged(bubblewrap: str, tmp_path: Path) -> None:
    """The first 100,000 bytes are kept; a value that the cut would split is hidden all the same."""
    script = "head -c 99997 /dev/zero | tr '\\0' x; echo $TOKEN; yes | head -c 100000"
    ended = await run(tmp_path, script, TOKEN="tok-1234")

    assert ended.truncated
    assert ended.stdout == "x" * 99_997 + "***"


async def test_the_end_of_the_command_is_the_end_of_its_children(
    bubblewrap: str, tmp_path: Path
) -> None:
    """A background process does not outlive the call."""
    began = time.monotonic()
    mark = "300.7531"
    await run(tmp_path, f"setsid sleep {mark} >/dev/null 2>&1 & echo x")

    assert time.monotonic() - began < 10
    await until(lambda: not sleepers(mark), seconds=2.0)


async def test_a_nul_cannot_smuggle_options_in(bubblewrap: str, tmp_path: Path) -> None:
    """Options are separated by NUL; a value that has one is refused."""
    with pytest.raises(NodeError, match="NUL") as caught:
        await run(tmp_path, "true", TOKEN="a\0--bind\0/\0/host")

    assert caught.value.code == "ConfigError"


DAEMON = """
import os, signal, sys, time
for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(one, signal.SIG_IGN)
for _ in range(2):
    if os.fork():
        break
    os.setsid()
else:
    null = os.open("/dev/null", os.O_RDWR)
    for one in (0, 1, 2):
        os.dup2(null, one)
    open("up", "w").close()
    os.execvp("sleep", ["sleep", sys.argv[1]])
time.sleep(300)
"""


async def test_a_daemon_is_gone_two_seconds_after_a_cancel(bubblewrap: str, tmp_path: Path) -> None:
    """It forked twice, has a session of its own and ignores SIGTERM."""
    mark, room = "300.1234", tmp_path / "room"
    room.mkdir()
    (room / "daemon.py").write_text(DAEMON)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, tmp_path, f"python3 daemon.py {mark}")
        await until(lambda: bool(sleepers(mark)), seconds=30)
        nursery.cancel_scope.cancel()

    await until(lambda: not sleepers(mark), seconds=2.0)


async def test_a_daemon_is_gone_after_a_timeout(bubblewrap: str, tmp_path: Path) -> None:
    """The wall time kills like a cancel."""
    mark, room = "300.4321", tmp_path / "room"
    room.mkdir()
    (room / "daemon.py").write_text(DAEMON)

    with pytest.raises(TimedOut):
        await run(tmp_path, f"python3 daemon.py {mark}", seconds=3)

    assert (room / "up").exists()
    await until(lambda: not sleepers(mark), seconds=2.0)


async def test_a_result_comes_back_beside_the_output(bubblewrap: str, tmp_path: Path) -> None:
    """Through a descriptor whose number is the command's last argument; files go in read-only."""
    sandbox = Sandbox(offering(tmp_path), search_path=bubblewrap)
    script = 'cat /.job/in >&"$1"; touch /.job/in'
    job = Job(
        command=("bash", "-c", script, "me"),
        seconds=30,
        files={"/.job/in": json.dumps({"a": 1}).encode()},
        wants_result=True,
    )
    ended = await sandbox.run(job, workflow_id=1, workspace_id=None)

    assert json.loads(ended.result) == {"a": 1}
    assert ended.exit_code == 1
