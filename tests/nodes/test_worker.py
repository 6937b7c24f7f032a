"""Jobs in killable children: answers, limits, and that nothing is left behind."""

import os
import sys
from pathlib import Path

import pytest
import trio

from pipelit.nodes import worker
from pipelit.nodes.worker import WorkerError, WorkerPool, WorkerUnavailable

pytestmark = pytest.mark.slow

ENDLESS = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
HUNGRY = "{{ 'x'.ljust(1000000000) }}"
CATASTROPHE = r"(a+)+$"


def children():
    """Return the process ids of this process's worker children."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
            command = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        if int(parent) == os.getpid() and "worker_main" in command:
            found.append(int(pid))
    return found


def environment_of(pid):
    """Return the variables a process was started with, as the kernel has them."""
    return Path(f"/proc/{pid}/environ").read_text()


async def test_templates_render_and_patterns_match():
    """Both kinds of job give their value; objects render as JSON or as Python literals."""
    async with WorkerPool() as pool:
        context = {"xs": [1, 2], "o": {"a": None, "ü": True}, "big": 2**100}

        assert await pool.render("{% for x in xs %}{{ x }};{% endfor %}", context) == "1;2;"
        assert await pool.render("{{ o }}{{ big }}", context) == (
            '{"a": null, "ü": true}' + str(2**100)
        )
        assert await pool.render("{{ o }}", context, python_literals=True) == (
            "{'a': None, 'ü': True}"
        )
        assert await pool.search(r"\d+", "order 77")
        assert not await pool.search(r"^\d+", "order 77")


async def test_failures_say_what_they_are():
    """An undefined name and a bad pattern are told apart; the child lives on."""
    async with WorkerPool(size=1) as pool:
        with pytest.raises(WorkerError, match="'x' is undefined") as expression:
            await pool.render("{{ x + 1 }}", {})
        with pytest.raises(WorkerError, match="unterminated character set") as pattern:
            await pool.search("[bad", "x")
        before = children()
        await pool.search("a", "a")

        assert (expression.value.kind, pattern.value.kind) == ("expression", "pattern")
        assert before == children()
        assert len(before) == 1


async def test_a_catastrophic_pattern_is_stopped_and_the_next_job_runs():
    """A backtracking explosion costs 50 ms of processor time and not even the child."""
    async with WorkerPool(size=1) as pool:
        with pytest.raises(WorkerError) as caught:
            await pool.search(CATASTROPHE, "a" * 40 + "b")

        assert caught.value.kind == "timeout"
        assert await pool.search("a", "a")


async def test_a_template_that_never_ends_is_killed():
    """After its wall time the child is killed and a new one takes the next job."""
    async with WorkerPool(size=1, job_seconds=0.3) as pool:
        with pytest.raises(WorkerError, match=r"took longer than 0\.3 s") as caught:
            await pool.render(ENDLESS, {})

        assert caught.value.kind == "timeout"
        assert children() == []
        assert await pool.search("a", "a")


async def test_a_template_that_eats_memory_fails_alone():
    """The memory limit ends the job, whether the child survives it or not."""
    async with WorkerPool(size=1, job_seconds=20) as pool:
        with pytest.raises(WorkerError):
            await pool.render(HUNGRY, {})

        assert await pool.search("a", "a")


async def test_output_is_bounded():
    """More than 1 MiB of output is a failure, found while rendering."""
    async with WorkerPool(size=1, job_seconds=20) as pool:
        with pytest.raises(WorkerError, match="larger than 1048576"):
            await pool.render("{% for a in range(100000) %}0123456789abc{% endfor %}", {})


async def test_the_loop_keeps_turning_while_a_child_is_busy():
    """Other tasks run while a template burns its time."""
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            turns += 1
            await trio.sleep(0.01)

    async with WorkerPool(job_seconds=0.3) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(turn)
        with pytest.raises(WorkerError):
            await pool.render(ENDLESS, {})
        nursery.cancel_scope.cancel()

    assert turns > 5


async def test_cancelling_a_job_kills_its_child():
    """A cancelled caller leaves no process behind."""
    async with WorkerPool(job_seconds=60) as pool:
        with trio.move_on_after(0.5):
            await pool.render(ENDLESS, {})

        assert children() == []


async def test_nothing_is_left_after_close_and_no_job_can_follow():
    """Closing kills the idle children; a later job is refused."""
    pool = WorkerPool()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.search, "a", "a")
        nursery.start_soon(pool.search, "a", "a")
    assert len(children()) == 2

    await pool.aclose()

    assert children() == []
    with pytest.raises(trio.ClosedResourceError):
        await pool.search("a", "a")


async def test_an_idle_child_that_died_is_replaced():
    """A child killed from outside costs nothing but a new start."""
    async with WorkerPool(size=1) as pool:
        await pool.search("a", "a")
        (pid,) = children()
        os.kill(pid, 9)
        await trio.to_thread.run_sync(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)

        assert await pool.search("a", "a")
        assert children() != [pid]


async def test_children_know_nothing_of_the_servers_environment(monkeypatch):
    """No variable of the server reaches a child: secrets live there."""
    monkeypatch.setenv("FIELD_ENCRYPTION_KEY", "secret")
    async with WorkerPool(size=1) as pool:
        await pool.search("a", "a")
        (pid,) = children()

        assert environment_of(pid) == "LANG=C.UTF-8\0"


async def test_a_child_that_cannot_start_is_no_verdict_on_the_job(monkeypatch):
    """A broken installation is told apart from a bad template."""
    monkeypatch.setattr(worker, "_COMMAND", (sys.executable, "-c", "pass"))

    async with WorkerPool(size=1) as pool:
        with pytest.raises(WorkerUnavailable):
            await pool.search("a", "a")

    assert children() == []
