"""Kills a server under load again and again, and audits it from outside.

Usage: python ops/soak/kill_loop.py [--kills N] [--rate R] [--seed S] [--database-url URL]

A real server process, mixed load over real sockets, SIGKILL at random moments, during recovery,
too. At the end everything settles, and what the API shows is held against what clients saw. Prints
a table of invariants; the exit code is 1 if one was violated. See docs/soak.md.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import msgspec
import trio

ROOT = Path(__file__).absolute().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from ops.soak.auditor import CHECKS  # noqa: E402 - the path to it is set above
from ops.soak.clients import Notes  # noqa: E402
from ops.soak.collect import is_settled, read_jobs, read_runs  # noqa: E402
from ops.soak.door import ConnectionLost  # noqa: E402
from ops.soak.history import History, Run  # noqa: E402
from ops.soak.kill_load import (  # noqa: E402
    MODEL,
    PRICE,
    Load,
    Outside,
    PatientCaller,
    draft_all,
    open_outside,
)
from ops.soak.remote import ANSWER_SECONDS, Program, RemoteDoor  # noqa: E402
from pipelit.clock import format_instant  # noqa: E402

SETTLE_SECONDS = 120.0
RECOVERIES = 3
"""Deaths in a row, before its next result, that a run gets over. Contract: engine.md §10.3."""
GIVEN_UP = f"exceeded {RECOVERIES} recovery"
LONG_LIFE = (1.0, 7.0)
EARLY_DEATH = (0.5, 2.0)
SHOWN = 12


class Story(msgspec.Struct, kw_only=True):
    """What happened, beside what the clients noted."""

    kills: list[datetime] = []
    early: int = 0
    stuck: list[int] = []
    """`stuck_executions` at each sample."""
    exit_code: int | None = None
    complaint: str = ""


class KillLoop:
    """One run of the loop."""

    def __init__(
        self, folder: Path, *, kills: int, rate: float, seed: int, database_url: str | None
    ) -> None:
        self._folder = folder
        self._kills = kills
        self._rate = rate
        self._draw = Random(seed)
        self._database_url = database_url
        self.notes = Notes()
        self.story = Story()

    async def run(self) -> tuple[History, "Load"]:
        """Run it; return what was seen, and what was wanted."""
        async with AsyncExitStack() as stack:
            outside = await stack.enter_async_context(open_outside(self._draw))
            http = await stack.enter_async_context(
                httpx2.AsyncClient(trust_env=False, verify=False, timeout=ANSWER_SECONDS)
            )
            connections = await stack.enter_async_context(trio.open_nursery())
            program = Program(self._folder, self._environ(outside))
            door: Any = RemoteDoor(program.url, http, connections)
            caller = await self._set_up(program, door, outside)
            load = Load(caller, self.notes, self._draw)
            history = await self._kill_and_settle(program, caller, load, outside)
            connections.cancel_scope.cancel()
        return history, load

    def _environ(self, outside: Outside) -> dict[str, str]:
        prices = self._folder / "prices.json"
        prices.write_bytes(msgspec.json.encode({MODEL: PRICE}))
        environ = {
            "PIPELIT_EGRESS_ALLOW": outside.web_url.removeprefix("http://"),
            "PIPELIT_MODEL_PRICES": str(prices),
        }
        if self._database_url is not None:
            environ["PIPELIT_DATABASE_URL"] = self._database_url
        return environ

    async def _set_up(self, program: Program, door: Any, outside: Outside) -> PatientCaller:
        """Make the first admin, the workflows and the schedules; the server then is down."""
        async with program.run() as process:
            await program.wait_ready(process)
            account = {"username": "ada", "password": "correct horse battery"}
            answer = await door.request("POST", "/api/v1/auth/setup/", account, key="")
            caller = PatientCaller(door, answer.json["key"], self.notes)
            detail = {
                "provider_type": "openai_compatible",
                "api_key": "sk-soak",
                "base_url": outside.model_url,
            }
            body = {"name": "model", "credential_type": "llm", "detail": detail}
            credential = (await caller.surely("POST", "/credentials/", body)).json["id"]
            for slug, draft in draft_all(outside, credential).items():
                workflow_id = await caller.build(draft)
                if slug == "ticks":
                    await self._schedule(caller, workflow_id)
        return caller

    async def _schedule(self, caller: PatientCaller, workflow_id: int) -> None:
        for catch_up in ("one", "skip", "all"):
            body = {"name": catch_up, "workflow_id": workflow_id, "interval_seconds": 1}
            await caller.surely("POST", "/schedules/", {**body, "catch_up": catch_up})

    async def _kill_and_settle(
        self, program: Program, caller: PatientCaller, load: Load, outside: Outside
    ) -> History:
        async with trio.open_nursery() as helpers:
            helpers.start_soon(load.keep_answering)
            helpers.start_soon(load.keep_looking)
            helpers.start_soon(self._sample, caller)
            async with trio.open_nursery() as followers:
                async with trio.open_nursery() as clients:
                    clients.start_soon(load.keep_starting, self._rate, followers)
                    for number in range(self._kills):
                        await self._live_and_die(program, number)
                    clients.cancel_scope.cancel()
                async with program.run() as process:
                    await program.wait_ready(process)
                    await self._settle(caller, followers)
                    helpers.cancel_scope.cancel()
                    with trio.CancelScope(shield=True):
                        history = await self._collect(caller, outside)
                        self.story.exit_code = await program.stop(process)
        self.story.complaint = await program.check()
        return history

    async def _live_and_die(self, program: Program, number: int) -> None:
        """Let a server live for a while, or die before or while it recovers."""
        async with program.run() as process:
            # Never three in a row: what crashes thrice before its first commit is given up.
            if number % 3:
                started = trio.current_time()
                await program.wait_ready(process)
                # A machine that is busy gets more time to bring something to an end.
                slowness = trio.current_time() - started
                await trio.sleep(self._draw.uniform(*LONG_LIFE) + slowness)
            else:
                self.story.early += 1
                await trio.sleep(self._draw.uniform(*EARLY_DEATH))
            if process.poll() is not None:
                raise RuntimeError(f"the server ended by itself; see {program.log}")
            self.story.kills.append(datetime.now(UTC))
            process.kill()
            await process.wait()

    async def _sample(self, caller: PatientCaller) -> None:
        while True:
            with suppress(ConnectionLost):
                info = (await caller.surely("GET", "/system/info/")).json
                self.story.stuck.append(info["stuck_executions"])
            await trio.sleep(0.5)

    async def _settle(self, caller: PatientCaller, followers: trio.Nursery) -> None:
        """Pause the schedules and wait until everything has ended and everybody has heard so."""
        for job in await read_jobs(caller, ""):
            await caller.surely("POST", f"/schedules/{job.detail['id']}/pause/")
        with trio.move_on_after(SETTLE_SECONDS):
            while not await is_settled(caller):  # noqa: ASYNC110 - another process
                await trio.sleep(0.5)
            while followers.child_tasks:  # noqa: ASYNC110 - a nursery tells nobody
                await trio.sleep(0.1)
        followers.cancel_scope.cancel()  # the auditor says who is stuck, and who heard nothing

    async def _collect(self, caller: PatientCaller, outside: Outside) -> History:
        notes = self.notes
        runs = await read_runs(caller)
        return History(
            starts=notes.all_starts(),
            seen=tuple(notes.seen),
            heard=tuple(notes.heard),
            runs=runs,
            answered=tuple(notes.answered),
            cancelled=tuple(notes.cancelled),
            model_calls=tuple(outside.model_calls),
            price=PRICE,
            disturbed=frozenset(run.id for run in runs if self._is_disturbed(run)),
            outside_calls=tuple(outside.outside_calls),
            jobs=await read_jobs(caller, format_instant(datetime.now(UTC))),
            faults=tuple(notes.faults),
        )

    def _is_disturbed(self, run: Run) -> bool:
        """Tell whether a run was killed or cancelled in its middle: then its bill is unknown."""
        if run.status != "completed":
            return True
        first, last = span(run)
        slack = timedelta(seconds=1)
        return any(first - slack <= kill <= last + slack for kill in self.story.kills)


def check_answers(history: History, load: Load, story: Story) -> Iterator[str]:
    """Every run that nobody cancelled completes, with the answer that is its own."""
    runs = {run.id: run for run in history.runs}
    for start in history.starts:
        for execution_id in {*start.accepted} & runs.keys():
            run = runs[execution_id]
            wanted = load.wanted[start.mark][1]
            if run.status == "failed" and not is_given_up(run, story):
                yield f"{run.id} failed: {run.detail['error_message']}"
            elif run.status == "completed" and run.detail["final_output"] != {"output": wanted}:
                yield f"{run.id} answered {run.detail['final_output']}, wanted {wanted}"
    for run in history.runs:
        if run.status == "cancelled" and not any(s.how == "cancel" for s in history.seen):
            yield f"{run.id} was cancelled by nobody"


def is_given_up(run: Run, story: Story) -> bool:
    """Tell whether a run, or its child, failed as it must when four servers die under it."""
    first, last = span(run)
    deaths = sum(first <= kill <= last for kill in story.kills)
    return GIVEN_UP in run.detail["error_message"] and deaths > RECOVERIES


def span(run: Run) -> tuple[datetime, datetime]:
    """Return when a run started and when it ended."""
    first, last = (
        datetime.fromisoformat(run.detail[name]).replace(tzinfo=UTC)
        for name in ("started_at", "completed_at")
    )
    return first, last


def check_story(story: Story) -> Iterator[str]:
    """The server said nothing was stuck, stopped in order, and left a sound database."""
    if any(story.stuck) or not story.stuck:
        yield f"stuck_executions: {max(story.stuck, default=None)}"
    if story.exit_code != 0:
        yield f"the server stopped with {story.exit_code}"
    if story.complaint:
        yield f"db check: {story.complaint}"


def judge(history: History, load: Load, story: Story) -> dict[str, list[str]]:
    """Return for each invariant what violates it."""
    own: dict[str, Callable[[], Iterator[str]]] = {
        _promise(check_answers): lambda: check_answers(history, load, story),
        _promise(check_story): lambda: check_story(story),
    }
    return {
        **{_promise(check): list(check(history)) for check in CHECKS},
        **{promise: list(check()) for promise, check in own.items()},
    }


def _promise(check: Callable[..., Any]) -> str:
    return (check.__doc__ or check.__name__).partition("\n")[0]


def report(history: History, story: Story, judged: dict[str, list[str]]) -> int:
    """Print the table; return the exit code."""
    statuses = Counter(run.status for run in history.runs)
    print(
        f"{len(story.kills)} kills ({story.early} of them early), {len(history.runs)} executions "
        f"({', '.join(f'{count} {status}' for status, count in sorted(statuses.items()))}), "
        f"{sum(len(run.events) for run in history.runs)} events, "
        f"{len(history.heard)} followers, {len(history.answered)} answers, "
        f"{len(history.model_calls or ())} model calls, "
        f"{len(story.stuck)} samples of stuck_executions"
    )
    width = max(map(len, judged))
    for promise, violations in judged.items():
        print(f"{promise:{width}}  {len(violations)}")
    found = [sentence for violations in judged.values() for sentence in violations]
    for sentence in found[:SHOWN]:
        print(f"  {sentence[:500]}")
    print(f"violations: {len(found)}", flush=True)
    return 1 if found else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return the exit code."""
    parser = argparse.ArgumentParser(description="Kill a server again and again, and audit it.")
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--rate", type=float, default=20.0, help="starts in a second")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--database-url", help="an empty PostgreSQL database; else SQLite")
    parser.add_argument("--folder", help="an empty folder that is kept, with the server's log")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = options.folder or stack.enter_context(
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        )
        loop = KillLoop(
            Path(folder),
            kills=options.kills,
            rate=options.rate,
            seed=options.seed,
            database_url=options.database_url,
        )
        history, load = trio.run(loop.run)
    return report(history, loop.story, judge(history, load, loop.story))


if __name__ == "__main__":
    sys.exit(main())
