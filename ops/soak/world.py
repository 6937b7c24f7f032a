"""A whole server on a mock clock, again and again on one database file, as one seed has it.

It is the product's own tree from `pipelit.tree`, its own store on a real SQLite file, its own web
application. Replaced are only: the clock, identifiers, threads, child processes, providers, the
network, and the sockets of the HTTP server.
"""

import dataclasses
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import httpx2
import msgspec
import trio
from pydantic import SecretStr
from sqlalchemy import Connection, insert

from ops.soak.chance import Chance, replaced
from ops.soak.door import Door
from ops.soak.ports import (
    MICROS_PER_TOKEN,
    MODEL,
    Life,
    Models,
    Names,
    Network,
    Outside,
    ProcessDied,
    Workers,
)
from pipelit.actors.runtime import (
    Actor,
    ChildSpec,
    Message,
    Record,
    RestartLimitExceeded,
    SupervisorSpec,
    System,
    open_system,
)
from pipelit.actors.runtime.envelope import current_turn
from pipelit.assembly import web as assembly_web
from pipelit.assembly.base import Base, World, open_base
from pipelit.assembly.web import build_web
from pipelit.clock import Clock, Ids
from pipelit.llm.provider import ProviderCache
from pipelit.net.gateway import Gateway
from pipelit.nodes import bubblewrap, process
from pipelit.services.api_keys import describe_key
from pipelit.settings import Settings
from pipelit.store import Store, schema
from pipelit.store.database import Purpose, open_engine, parse_database_url
from pipelit.store.migrate import Migrations
from pipelit.store.queries.keys import insert_key
from pipelit.store.secrets import new_key
from pipelit.tree import build_root

START = datetime(2026, 2, 3, 8, 15, tzinfo=UTC)
KEY = "the-key-of-the-soak"
PRICES = "prices.json"
DRAIN_SECONDS = 5.0


class JumpingClock(Clock):
    """Wall time that follows the mock clock, but for its jumps."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def now(self) -> datetime:
        """Return the wall time."""
        return START + self.offset + timedelta(seconds=trio.current_time())


class SimulatedCrash(Exception):
    """A defect that the server does not have."""


class Weather:
    """Lets actors crash and answer late. Implements the runtime's `Faults`."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance

    def before_turn(self, path: str) -> None:
        """Crash the actor at *path*, now and then."""
        if self._chance.happens("crash", self._chance.climate.actor_crashes):
            raise SimulatedCrash(path)

    def within_turns(self, real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Return a method of the store after which an actor crashes in the middle of its turn."""

        async def call(store: Store, *given: Any, **more: Any) -> Any:
            result = await real(store, *given, **more)
            turn = current_turn.get()
            if turn is not None and turn.holds:
                self.before_turn(turn.path)
            return result

        return call

    def reply_delay(self, path: str) -> float:
        """Return how long to hold a reply back."""
        late = self._chance.happens("reply", self._chance.climate.reply_late)
        return self._chance.stream("reply").uniform(0, 3) if late else 0.0


class Server:
    """The server of one run, over all its lives."""

    def __init__(self, chance: Chance, folder: Path) -> None:
        self.chance = chance
        self.clock = JumpingClock()
        self.outside = Outside(chance)
        self.door = Door(chance)
        self.records: list[Record] = []
        self.disturbed: set[str] = set()
        self.crashed: set[str] = set()
        """Paths of actors that crashed, over all lives."""
        self.deaths = 0
        self.url = f"sqlite:///{folder / 'db.sqlite3'}"
        self._system: System | None = None
        self._scope = trio.CancelScope()
        self._stop = trio.Event()
        self._lives = 0
        self._settings = Settings(
            data_dir=folder,
            database_url=self.url,
            model_prices=folder / PRICES,
            field_encryption_key=SecretStr(_encryption_key()),
            max_execution_seconds=240,
            max_concurrent_executions=chance.stream("settings").choice((2, 10)),
            max_parallel_nodes=chance.stream("settings").choice((2, 10)),
            confirmation_timeout_seconds=60,
            shutdown_grace_seconds=3.0,
        )

    @property
    def system(self) -> System | None:
        """The tree, while one is up."""
        return self._system

    def kill(self) -> None:
        """End the process as `kill -9` does: nothing it would still do has any effect."""
        if self._system is not None:
            self.deaths += 1
            self._die()

    def stop(self) -> None:
        """Ask the process to end in order; the next one follows."""
        self._stop.set()

    async def serve(self) -> None:
        """Run one process after another until cancelled."""
        with ExitStack() as stack:
            _replace_outside(stack, self.outside)
            weather = Weather(self.chance)
            for name in ("read", "write"):
                real = getattr(Store, name)
                stack.enter_context(replaced(Store, name, weather.within_turns(real)))
            while True:
                await self._live()
                await trio.sleep(self.chance.stream("downtime").choice((0.1, 1.0, 40.0)))

    async def wait_up(self) -> None:
        """Wait until a server listens."""
        while self._system is None:  # noqa: ASYNC110 - one life after another
            await trio.sleep(0.05)

    async def _live(self) -> None:
        self._lives += 1
        life = self.outside.life = Life(self._lives)
        self._stop, self._scope = trio.Event(), trio.CancelScope()
        try:
            with self._scope:
                async with self._run_process(life):
                    await self._stop.wait()
                    self._disturb()
        except* (RestartLimitExceeded, ProcessDied):
            pass  # the process has ended; what called it starts the next one
        finally:
            self._die()

    def _die(self) -> None:
        self._disturb()
        self.outside.life.alive = False
        self.door.close()
        self._system = None
        self._scope.cancel()

    def _disturb(self) -> None:
        """Note which executions are in the middle of something."""
        if self._system is not None:
            self.disturbed |= set(running_executions(self._system))

    @asynccontextmanager
    async def _run_process(self, life: Life) -> AsyncIterator[None]:
        """Run a server process for the length of the block, which begins when it listens."""
        async with AsyncExitStack() as stack:
            base = await self._open_base(stack)
            root = partial(self._build_root, base, life)
            self._system = await stack.enter_async_context(
                open_system(
                    root,
                    wall=lambda: self.clock.now().timestamp(),
                    rng=self.chance.stream("jitter"),
                    sinks=(partial(self._note, life),),
                    perf=None,
                    faults=Weather(self.chance),
                )
            )
            yield
            self._system = None

    def _note(self, life: Life, record: Record) -> None:
        if not life.alive:
            return
        self.records.append(record)
        crashed = record.event == "actor_crashed"
        if crashed:
            self.crashed.add(record.actor)
        # "why": it did not end by itself, for instance because a crash took the whole tree along.
        if record.actor.startswith("/executions/") and (crashed or "why" in record.detail):
            self.disturbed.add(record.actor.removeprefix("/executions/"))

    def _build_root(self, base: Base, life: Life, system: System) -> SupervisorSpec:
        root = build_root(base, system)
        web = ChildSpec(
            id="web",
            kind="web",
            start=lambda: Front(base, self.door, life),
            grace=DRAIN_SECONDS + 5,
        )
        others = tuple(child for child in root.children if child.id != "web")
        return msgspec.structs.replace(root, children=(*others, cast("Any", web)))

    async def _open_base(self, stack: AsyncExitStack) -> Base:
        world = World(
            clock=self.clock,
            ids=Ids(self.chance.stream("ids").randbytes),
            say=lambda _: None,
            on_listening=lambda _: None,
        )
        base = await open_base(self._settings, world, stack)
        http = Network(self.outside)
        return dataclasses.replace(
            base,
            pool=await stack.enter_async_context(Workers(self.outside)),
            http=http,
            provider_http=http,
            gateway=Gateway(http, url="", admin_token="", send_token=""),
            providers=cast("ProviderCache", Models(self.outside)),
            resolver=Names(),
        )


def running_executions(system: System) -> list[str]:
    """Return the ids of the executions that have an actor."""
    prefix = "/executions/"
    return [path.removeprefix(prefix) for path in system.directory.cells if path.startswith(prefix)]


class Drained(Message, frozen=True):
    """No connection is under way any more."""


class Front(Actor[Drained]):
    """The web server as an actor, with the door in place of sockets."""

    def __init__(self, base: Base, door: Door, life: Life) -> None:
        self._base = base
        self._door = door
        self._life = life
        self._stopping = trio.Event()

    async def on_start(self) -> None:
        """Open the door."""
        app = await build_web(self._base, self.ctx.system, self._stopping)
        self._door.open(app, self.ctx.start_soon, self._life)

    async def receive(self, message: Drained) -> None:
        """Nothing is left to serve."""
        self.ctx.stop()

    async def on_drain(self) -> None:
        """Let requests end and say goodbye to sockets."""
        self._stopping.set()
        self.ctx.start_soon(self._drain)

    async def _drain(self) -> None:
        with trio.move_on_after(DRAIN_SECONDS):
            while self._door.connections:  # noqa: ASYNC110 - as an HTTP server counts them down
                await trio.sleep(0.1)
        self._door.close()
        self.ctx.post(Drained())


def _replace_outside(stack: ExitStack, outside: Outside) -> None:
    """Put our ports where the product has no constructor for them."""

    async def no_problem(*_: object) -> str:
        await trio.lowlevel.checkpoint()
        return ""

    stack.enter_context(replaced(trio.to_thread, "run_sync", outside.run_sync))
    stack.enter_context(replaced(process, "run", outside.run_process))
    stack.enter_context(replaced(bubblewrap, "find_problem", no_problem))
    # Reading the machine's certificates takes long, and nobody speaks TLS here.
    stack.enter_context(replaced(httpx2, "create_ssl_context", cache(httpx2.create_ssl_context)))
    # The documentation of all routes is the same for every server, and takes a while to write.
    stack.enter_context(replaced(assembly_web, "_describe", _describe))


_describe = cache(assembly_web._describe)  # noqa: SLF001 - made once for all lives


@cache
def _encryption_key() -> str:
    return new_key()


@contextmanager
def fresh_folder(template: Path, folder: Path) -> Iterator[Path]:
    """Give a data directory with a migrated database and one admin; remove it at the end."""
    folder.mkdir()
    try:
        shutil.copyfile(template, folder / "db.sqlite3")
        (folder / PRICES).write_text(f'{{"{MODEL}": {[*MICROS_PER_TOKEN]}}}', encoding="ascii")
        with _writing(folder / "db.sqlite3") as connection:
            connection.execute(
                insert(schema.workspaces).values(
                    owner_id=1,
                    name="default",
                    path=str(folder / "workspaces" / "default"),
                    env_vars=[],
                    created_at=START,
                )
            )
        yield folder
    finally:
        shutil.rmtree(folder)


def write_template(path: Path) -> None:
    """Make a migrated database in which one admin exists, to be copied."""
    engine = open_engine(parse_database_url(f"sqlite:///{path}"), Purpose.MIGRATE)
    Migrations().upgrade(engine)
    engine.dispose()
    with _writing(path) as connection:
        person = insert(schema.users).values(username="ada", role="admin", created_at=START)
        user_id = connection.execute(person.returning(schema.users.c.id)).scalar_one()
        insert_key(connection, user_id, describe_key(KEY, name="soak", created_at=START))


@contextmanager
def _writing(path: Path) -> Iterator[Connection]:
    engine = open_engine(parse_database_url(f"sqlite:///{path}"), Purpose.MIGRATE)
    with engine.begin() as connection:
        yield connection
    engine.dispose()  # the last connection leaves one file, no log beside it
