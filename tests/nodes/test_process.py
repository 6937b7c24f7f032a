"""Running a program inside its limits, without a sandbox. Contract: engine.md §29.3, §11.3."""

import os
import time

import pytest
import trio
import trio.testing

from pipelit.nodes.process import Ended, TimedOut, run

ENVIRON = {"PATH": os.environ.get("PATH", os.defpath)}


async def shell(script: str, *, seconds: float = 30, keep: int = 100_000) -> Ended:
    return await run(["bash", "-c", script], seconds=seconds, environ=ENVIRON, keep=keep)


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_gone(pid: int, seconds: float = 2.0) -> bool:
    """Look until a process is gone: the kernel takes a moment to end it."""
    until = time.monotonic() + seconds
    while is_alive(pid):
        if time.monotonic() > until:
            return False
        os.sched_yield()
    return True


async def test_a_program_is_read_to_its_end() -> None:
    """Both outputs and the exit code; the input is empty, the environment is what was given."""
    ended = await shell("echo out; echo err >&2; cat; echo $HOME; exit 3")

    assert ended == Ended(3, b"out\n\n", b"err\n", False)


async def test_a_signal_is_a_negative_exit_code() -> None:
    """As the system tells it."""
    assert (await shell("kill -9 $$")).exit_code == -9


async def test_output_is_kept_up_to_its_limit_and_flagged() -> None:
    """The rest is read and dropped: the program is not held up, and the other output is whole."""
    ended = await shell("head -c 3000000 /dev/zero; echo done >&2", keep=1000)

    assert (len(ended.stdout), ended.stderr, ended.truncated) == (1000, b"done\n", True)


async def test_output_at_its_limit_is_not_flagged() -> None:
    """Nothing was dropped."""
    assert (await shell("printf 1234567890", keep=10)).truncated is False


async def test_a_program_that_is_late_is_killed_with_its_children(tmp_path) -> None:
    """They ignore SIGTERM; it is no use."""
    script = f"trap '' TERM; sleep 60 & echo $! >{tmp_path}/pid; wait"

    with pytest.raises(TimedOut, match=r"timed out after 0\.5 seconds"):
        await shell(script, seconds=0.5)

    assert wait_gone(int((tmp_path / "pid").read_text()))


async def test_a_cancelled_program_is_killed() -> None:
    """Before the cancellation reaches the caller."""
    started: list[float] = []
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shell, "sleep 60")
            started.append(trio.current_time())
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()

    assert scope.cancelled_caught
    assert trio.current_time() - started[0] < 5


async def test_a_pipe_kept_open_by_somebody_else_is_not_waited_for_long() -> None:
    """A background process that left the group has the output; the program ended all the same."""
    ended = await shell("setsid sleep 5 & echo x")

    assert (ended.exit_code, ended.stdout) == (0, b"x\n")


async def test_a_program_outlives_the_threads_that_trio_no_longer_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bubblewrap dies with the thread that started it, so the loop's own thread has to.

    This program asks for the same, and outlives every thread that waits for work.
    """
    monkeypatch.setattr("trio._core._thread_cache.IDLE_TIMEOUT", 0.05)
    script = (
        "import ctypes, os, signal, sys, time\n"
        "ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
        "time.sleep(1)\n"
        "print('alive')\n"
    )
    ended = await run(["python3", "-c", script], seconds=60, environ=ENVIRON)

    assert ended.stdout == b"alive\n"


async def test_a_program_that_is_not_there_cannot_be_started() -> None:
    """The system's error; no descriptor is left open."""
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(FileNotFoundError):
        await run(["no-such-program"], seconds=1, environ=ENVIRON)

    assert len(os.listdir("/proc/self/fd")) == before


async def test_no_descriptor_is_left_open() -> None:
    """After many programs there are as many as after one."""
    await shell("true")
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(5):
        await shell("true")

    assert len(os.listdir("/proc/self/fd")) == before
