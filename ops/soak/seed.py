"""One seed: a storm in which everything happens, then calm, then the audit."""

import hashlib
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import msgspec
import structlog
import trio
import trio.testing

from ops.soak.auditor import audit
from ops.soak.chance import CALM, Chance, ordered
from ops.soak.clients import Bystander, Caller, Notes, Person
from ops.soak.collect import (
    find_leaks,
    find_left_rows,
    is_settled,
    read_epics,
    read_jobs,
    read_runs,
)
from ops.soak.history import History
from ops.soak.plants import PLANTS
from ops.soak.ports import MICROS_PER_TOKEN, MODEL
from ops.soak.workflows import Draft, draw_workflow
from ops.soak.world import KEY, Server, fresh_folder, write_template
from pipelit.clock import format_instant

WORKFLOWS = 3
PEOPLE = 4
ACTIONS = 12
TASKS = 12
STORM_SECONDS = 180.0
SETTLE_SECONDS = 2400.0
LOOK_EVERY = 20.0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a seed."""

    seed: int
    violations: tuple[str, ...]
    digest: str
    """Of the whole history: equal digests are equal histories."""
    counts: dict[str, int]
    seconds: float


class Simulation:
    """One run: a storm in which everything happens, then calm, then the audit."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance = Chance(seed)
        self.folder = folder
        self.server = Server(self.chance, folder)
        self.notes = Notes()
        self.caller = Caller(self.server.door, KEY, self.notes)
        self.clock_jumped = False
        self._drafts: tuple[Draft, ...] = ()
        self._handlers: dict[str, int] = {}

    async def run(self) -> History:
        """Run it to the end and return what was seen."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.server.serve)
            await self.server.wait_up()
            await self._build()
            self.chance.climate = self.chance.stormy
            async with trio.open_nursery() as bystanders:
                bystander = Bystander(self._drafts[0].slug, self.caller, self.notes)
                bystanders.start_soon(bystander.listen)
                await self._storm()
                self.chance.climate = CALM
                await self._settle()
                bystanders.cancel_scope.cancel()
            await trio.sleep(60)  # connections end, the reconciler has looked again
            history = await self._collect()
            nursery.cancel_scope.cancel()
        return history

    async def _build(self) -> None:
        detail = {
            "provider_type": "openai_compatible",
            "api_key": "sk-soak",
            "base_url": "https://models.example/v1",
        }
        body = {"name": "model", "credential_type": "llm", "detail": detail}
        credential = (await self.caller.surely("POST", "/credentials/", body)).json["id"]
        draw, drafts, first = self.chance.stream("workflows"), [], None
        await self._plan()
        for number in range(WORKFLOWS):
            draft = draw_workflow(draw, number, credential_id=credential, model=MODEL)
            handler = first if draw.random() < 0.5 else None
            workflow_id = await self.caller.build(draft, error_handler_workflow_id=handler)
            first = first or workflow_id
            self._handlers[draft.slug] = draft.handles_failures + (handler is not None)
            drafts.append(draft)
            if draw.random() < 0.7:
                await self._schedule(workflow_id)
        self._drafts = tuple(drafts)

    async def _plan(self) -> None:
        """Give an epic with little money and some tasks to whom agents may run."""
        draw = self.chance.stream("epics")
        body = {"title": "Soak", "budget_tokens": draw.choice((800, 3000, None))}
        epic = (await self.caller.surely("POST", "/epics/", body)).json["id"]
        for number in range(TASKS):
            body = {"epic_id": epic, "title": f"Task {number}"}
            task = (await self.caller.surely("POST", "/tasks/", body)).json["id"]
            self.server.outside.tasks.append(task)

    async def _schedule(self, workflow_id: int) -> None:
        draw = self.chance.stream("schedules")
        patterns: tuple[dict[str, object], ...]
        patterns = ({"interval_seconds": draw.choice((7, 20, 45))}, {"cron": "* * * * *"})
        pattern = draw.choice(patterns)
        body = {
            **pattern,
            "name": f"job of {workflow_id}",
            "workflow_id": workflow_id,
            "catch_up": draw.choice(("one", "skip", "all")),
            "total_repeats": draw.choice((0, 0, 3)),
            "max_retries": draw.choice((0, 3)),
            "timeout_seconds": draw.choice((10, 200)),
            "trigger_payload": {"text": "tick w1"},
        }
        await self.caller.surely("POST", "/schedules/", body)

    async def _storm(self) -> None:
        async with trio.open_nursery() as watchers:
            async with trio.open_nursery() as people:
                people.start_soon(self._direct)
                for number in range(PEOPLE):
                    name = f"p{number}"
                    draw = self.chance.stream(f"person {number}")
                    person = Person(name, draw, self.caller, self.notes, self._drafts)
                    people.start_soon(person.live, ACTIONS, watchers)
            # Jobs that nobody ends would go on for ever; watchers see their runs end first.
            self.chance.climate = CALM
            await self._pause_jobs()

    async def _direct(self) -> None:
        """Let the process die or stop, and the clock jump, at times that chance picks."""
        draw, climate = self.chance.stream("fate"), self.chance.stormy
        acts = {self.server.kill: climate.deaths, self.server.stop: climate.stops}
        acts[self._jump] = climate.clock_jumps
        plan = sorted(
            (draw.uniform(0, STORM_SECONDS), number, act)
            for number, (act, expected) in enumerate(acts.items())
            for _ in range(int(expected) + (draw.random() < expected % 1))
        )
        started = trio.current_time()
        for at, _, act in plan:
            await trio.sleep_until(started + at)
            act()

    def _jump(self) -> None:
        self.clock_jumped = True
        draw = self.chance.stream("fate")
        self.server.clock.offset += timedelta(seconds=draw.choice((-40, -3, 9, 100, 400)))

    async def _pause_jobs(self) -> None:
        for job in await read_jobs(self.caller, ""):
            await self.caller.surely("POST", f"/schedules/{job.detail['id']}/pause/")

    async def _settle(self) -> None:
        started = trio.current_time()
        while not await is_settled(self.caller):
            if trio.current_time() - started > SETTLE_SECONDS:
                return  # the auditor says which one is stuck
            await trio.sleep(LOOK_EVERY)

    async def _collect(self) -> History:
        server, outside = self.server, self.server.outside
        runs = await read_runs(self.caller)
        jobs = await read_jobs(self.caller, format_instant(server.clock.now()))
        epics = await read_epics(self.caller)
        await trio.sleep(1)
        leaks = [*find_leaks(server), *find_left_rows(self.folder / "db.sqlite3")]
        return History(
            starts=self.notes.all_starts(),
            seen=tuple(self.notes.seen),
            heard=tuple(self.notes.heard),
            runs=runs,
            answered=tuple(self.notes.answered),
            cancelled=tuple(self.notes.cancelled),
            model_calls=tuple(outside.model_calls),
            price=MICROS_PER_TOKEN,
            disturbed=frozenset(server.disturbed),
            outside_calls=tuple(outside.outside_calls),
            jobs=jobs,
            epics=epics,
            handlers=self._handlers,
            clock_jumped=self.clock_jumped,
            live_lost="/hub" in server.crashed,
            leaks=tuple(leaks),
            faults=(*self.notes.faults, *server.door.faults),
        )


def run_seed(seed: int, plant: str | None = None) -> Result:
    """Simulate a seed in this process, with or without a planted bug."""
    structlog.configure(processors=[_drop])
    with ExitStack() as stack:
        place = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place)))
        write_template(root / "template.sqlite3")
        folder = stack.enter_context(fresh_folder(root / "template.sqlite3", root / "data"))
        if plant is not None:
            stack.enter_context(PLANTS[plant].planted())
        stack.enter_context(ordered(seed))
        started = time.perf_counter()
        simulation = Simulation(seed, folder)
        clock = trio.testing.MockClock(autojump_threshold=0)
        history = trio.run(simulation.run, clock=clock)
        spent = time.perf_counter() - started
    statuses = Counter(run.status for run in history.runs)
    return Result(
        seed=seed,
        violations=tuple(audit(history)),
        digest=hashlib.sha256(msgspec.json.encode(history, order="sorted")).hexdigest()[:16],
        counts=statuses
        | Counter(
            deaths=simulation.server.deaths, events=sum(len(run.events) for run in history.runs)
        ),
        seconds=spent,
    )


def _drop(*_: object) -> dict[str, object]:
    raise structlog.DropEvent
