"""A server without its web: store, hub, manager, chats and reconciler on a mock clock.

Components are the test's, by node id, in the fixture `components`; a node that is not there
succeeds at once. Workflows are written as in `tests.engine.runs`: `"t > a"`. Time jumps whenever
everything waits, but not while the store works.

The fixtures come with `tests/actors/conftest.py`; a conftest elsewhere needs the same lines.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from random import Random
from typing import Any

import pytest
import trio
import trio.testing
from sqlalchemy import URL, Connection, delete, insert, select, update

from pipelit.actors import paths
from pipelit.actors.budgets import Budgets
from pipelit.actors.chats import ChatSession, Post
from pipelit.actors.error_dispatch import ErrorDispatch
from pipelit.actors.execution_parts import ExecutionParts
from pipelit.actors.expiries import Expiries
from pipelit.actors.hub import Board, Copy, Hub, Subscription
from pipelit.actors.leases import Lease
from pipelit.actors.manager import Manager
from pipelit.actors.manager_messages import CancelExecution, Run, Start
from pipelit.actors.node_task import NodeRunner
from pipelit.actors.plans import Plans
from pipelit.actors.reconciler import Reconciler
from pipelit.actors.runtime import (
    ChildSpec,
    FamilySpec,
    Mailbox,
    RestartLimit,
    SupervisorSpec,
    System,
    open_system,
)
from pipelit.actors.runtime.testing import PlantedFaults
from pipelit.actors.store_writer import StoreWriter
from pipelit.clock import Clock, Ids, TrioClock
from pipelit.engine.limits import SizeLimits
from pipelit.engine.trigger import chat_trigger
from pipelit.nodes.base import Component, NodeServices
from pipelit.services.confirmations import Confirmations
from pipelit.services.principal import Principal
from pipelit.store import Store, schema
from pipelit.store.queries import executions as queries
from pipelit.store.queries.journal import Owner
from pipelit.store.queries.questions import OpenQuestion, list_open
from pipelit.store.queries.threads import ThreadAppend
from pipelit.store.writer import Hold
from tests.kit.flows import ADA, BOB, START, Verbatim, dispatch, store_workflow
from tests.kit.store import hold_of
from tests.nodes.calls import services


class Reader:
    """Who listens at the hub."""

    def __init__(self, user_id: int, *, is_admin: bool = False, acts_for: int | None = None):
        self.user_id, self.is_admin, self.acts_for = user_id, is_admin, acts_for


class Tree:
    """A running server and what a test asks of it."""

    def __init__(self, store: Store, system: System, faults: PlantedFaults, board: Board) -> None:
        self.store, self.system, self.faults, self.board = store, system, faults, board
        self.ids = Ids.seeded(7)
        self.clock = TrioClock(START)

    # Arranging

    async def workflow(self, *edges: str, slug: str = "flow", **config: dict[str, Any]) -> int:
        """Store a workflow of Ada's; `config` gives the `extra_config` of nodes."""
        return await self.store.write(lambda conn: store_workflow(conn, edges, slug, config))

    async def flag(self, node_id: str, *, before: bool = False, after: bool = False) -> None:
        """Have a person asked before a node runs, or after it."""
        nodes = schema.nodes
        statement = update(nodes).where(nodes.c.node_id == node_id)
        flags = {"interrupt_before": before, "interrupt_after": after}
        await self.store.write(lambda conn: conn.execute(statement.values(**flags)).rowcount)

    async def forget_edges(self, source: str = "a") -> None:
        """Remove the edges that leave a node, as an editor does."""
        edges, workflows = schema.edges, schema.workflows

        def remove(conn: Connection) -> None:
            conn.execute(delete(edges).where(edges.c.source_node_id == source))
            conn.execute(update(workflows).values(version=workflows.c.version + 1))

        await self.store.write(remove)

    def new(
        self,
        workflow_id: int = 1,
        *,
        chat: bool = False,
        user_id: int = BOB,
        limit: int = 900,
        text: str = "hi",
    ) -> queries.NewExecution:
        """Describe an execution of a workflow."""
        payload = {"text": text}
        return queries.NewExecution(
            id=self.ids.uuid(),
            workflow_id=workflow_id,
            trigger_node_id="t",
            user_id=user_id,
            thread_id=f"{user_id}:{workflow_id}" if chat else self.ids.hex(32),
            serial=chat,
            source="chat" if chat else "manual",
            trigger_payload=payload,
            trigger=chat_trigger(payload, user_id=user_id, user_name="bob"),
            limit_seconds=limit,
            created_at=self.clock.now(),
        )

    async def pending(self, workflow_id: int = 1, **more: Any) -> str:
        """Store an execution that nobody was told about."""
        new = self.new(workflow_id, **more)
        await self.store.write(lambda conn: queries.create(conn, new))
        return new.id

    async def start(self, workflow_id: int = 1, **more: Any) -> str:
        """Store an execution and have it started."""
        execution_id = await self.pending(workflow_id, **more)
        self.manager.tell(Start((execution_id,)))
        return execution_id

    async def run(self, workflow_id: int = 1, **more: Any) -> str:
        """Start an execution and wait until it does not run any more."""
        execution_id = await self.pending(workflow_id, **more)
        await self.run_stored(execution_id)
        return execution_id

    async def run_stored(self, execution_id: str) -> None:
        """Start a stored execution and wait until it does not run any more."""
        await self.manager.ask(Run(execution_id), timeout=100_000)

    async def ended(self, execution_id: str) -> None:
        """Wait until an execution is terminal, without touching it."""
        over = trio.Event()

        def hear(copy: Copy) -> None:
            if copy.type in {"execution_completed", "execution_failed", "execution_cancelled"}:
                over.set()

        subscription = Subscription(Reader(0, is_admin=True), hear)
        self.board.subscribe(subscription, f"execution:{execution_id}")
        if await self.status(execution_id) not in queries.TERMINAL:
            await over.wait()
        self.board.leave(subscription)
        await self.gone(execution_id)

    async def post(
        self,
        text: str = "hi",
        *,
        workflow_id: int = 1,
        idempotency: queries.Idempotency | None = None,
    ) -> tuple[str, queries.Replay | None]:
        """Say something in Bob's chat session; return the execution and a repeated response."""
        new = self.new(workflow_id, chat=True, text=text)
        said = ThreadAppend(
            thread_id=new.thread_id,
            namespace="",
            source="input",
            checkpoint_id=self.ids.ordered_uuid(new.created_at),
            execution_id=new.id,
            now=new.created_at,
            messages=(("user", {"role": "user", "content": text}),),
        )
        replay = await self.session(new.thread_id).ask(Post(new, said, idempotency))
        return new.id, replay

    def listen(self, channel: str, reader: Reader | None = None) -> list[Copy]:
        """Read a channel (as an admin) into the list that is returned."""
        heard: list[Copy] = []
        listener = reader or Reader(0, is_admin=True)
        self.board.subscribe(Subscription(listener, heard.append), channel)
        return heard

    # Acting

    @property
    def manager(self) -> Any:
        return self.system.ref(paths.MANAGER)

    def session(self, thread_id: str) -> Any:
        return self.system.family(paths.CHATS).ref(thread_id)

    def execution(self, execution_id: str) -> Any:
        return self.system.ref(paths.execution(execution_id))

    async def cancel(self, execution_id: str) -> None:
        await self.manager.ask(CancelExecution(execution_id), timeout=100.0)

    async def asked(self, execution_id: str, count: int = 1) -> list[OpenQuestion]:
        """Wait until an execution has so many open questions, and return them."""
        while True:
            found = await self.store.read(lambda conn: list_open(conn, execution_id))
            if len(found) >= count:
                return found
            await trio.sleep(0.01)

    async def interrupted(self, execution_id: str) -> OpenQuestion:
        """Wait until nothing goes on without an answer; return the oldest question."""
        (question, *_) = await self.asked(execution_id)
        await self.gone(execution_id)
        assert await self.status(execution_id) == "interrupted"
        return question

    async def gone(self, execution_id: str) -> None:
        """Wait until nothing runs the execution any more."""
        await self.execution(execution_id).wait_stopped()

    async def answer(self, execution_id: str, text: str, task_id: str | None = None) -> str:
        """Answer a question as Ada; return the status that she is shown."""
        service = Confirmations(self.store, self.clock, manager=self.manager)
        ada = Principal(
            user_id=ADA, username="ada", role="normal", key_id=1, is_agent=False, acts_for=None
        )
        return (await service.answer(ada, execution_id, text, task_id)).status

    async def settle(self) -> None:
        """Wait until nothing can happen without time passing: the clock jumps only then."""
        await trio.sleep(0.001)

    # Looking

    async def row(self, execution_id: str) -> Any:
        """Return the execution's row, but for its place in lists: that is no date at first."""
        table = schema.executions
        shown = (column for column in table.c if column.name != "listed_at")
        wanted = select(*shown).where(table.c.id == execution_id)
        return await self.store.read(lambda conn: conn.execute(wanted).one())

    async def status(self, execution_id: str) -> str:
        row = await self.row(execution_id)
        return str(row.status)

    async def story(self, execution_id: str) -> list[str]:
        """Return the stored events as words: `execution_started`, `a pending`."""
        return [
            f"{event.data['node_id']} {event.data['status']}"
            if event.type == "node_status"
            else event.type
            for event in await self.events(execution_id)
        ]

    async def events(self, execution_id: str) -> list[queries.StoredEvent]:
        return await self.store.read(
            lambda conn: queries.events_after(conn, execution_id, 0, limit=10_000)
        )

    async def logs(self, execution_id: str, node_id: str | None = None) -> list[dict[str, Any]]:
        found = await self.store.read(lambda conn: queries.find_detail(conn, execution_id))
        assert found is not None
        return [log for log in found.logs if node_id in (None, log["node_id"])]

    async def change(self, execution_id: str, **values: Any) -> None:
        """Change the execution's row behind everybody's back."""
        statement = update(schema.executions).where(schema.executions.c.id == execution_id)
        await self.store.write(lambda conn: conn.execute(statement.values(**values)).rowcount)


@asynccontextmanager
async def open_tree(
    url: URL,
    clock: trio.testing.MockClock,
    components: dict[str, Component],
    *,
    node_id: str = "server",
    epoch: int = 1,
    grace: float = 5.0,
    max_running: int = 100,
    max_parallel: int = 10,
    size_limits: SizeLimits = SizeLimits(),  # noqa: B008 - frozen
    zombie_threshold: int = 0,
    hub_capacity: int = 50_000,
    wall: Any = None,
    hold: Hold | None = None,
    more: Callable[[Store, Owner, Clock], Sequence[Any]] = lambda *_: (),
) -> AsyncIterator[Tree]:
    """Run a server for the length of the block.

    *components*: {node_id: what it does}. *more*: further children, started before the reconciler.
    *hold*: one for all servers that a test runs on one clock.
    """
    store = Store(url, hold=hold or hold_of(clock))
    board, faults, wall = Board(), PlantedFaults(), wall or TrioClock(START)
    owner = Owner(node_id, epoch)
    runner = NodeRunner(
        store=store,
        budgets=Budgets(store, owner, wall, Ids.seeded(300 + epoch)),
        services=NodeServices(clock=wall, ids=Ids.seeded(epoch), http=services().http),
        expressions=Verbatim(),
        component_of=lambda component_type: dispatch(components, component_type),
    )
    parts = ExecutionParts(
        store=store,
        owner=owner,
        clock=wall,
        ids=Ids.seeded(100 + epoch),
        plans=Plans(store),
        runner=runner,
        max_parallel=max_parallel,
        max_messages=2000,
        size_limits=size_limits,
    )
    children: Sequence[Any] = (
        SupervisorSpec(
            id=paths.STORE,
            children=(ChildSpec(id="writer", kind="store", start=lambda: StoreWriter(store)),),
        ),
        ChildSpec(
            id="hub",
            kind="hub",
            start=lambda: Hub(board, store, wall),
            mailbox=Mailbox(capacity=hub_capacity),
        ),
        ChildSpec(id="lease", kind="lease", start=lambda: Lease(store, owner, shared=False)),
        SupervisorSpec(id="executions"),
        ChildSpec(
            id="manager",
            kind="manager",
            start=lambda: Manager(parts, max_running=max_running, grace=grace),
        ),
        FamilySpec(
            id="chats",
            kind="chat",
            start=lambda thread_id: ChatSession(thread_id, store),
            idle_after=900.0,
            mailbox=Mailbox(capacity=64),
        ),
        ChildSpec(id="expiries", kind="expiries", start=lambda: Expiries(store, wall)),
        ChildSpec(
            id="errors",
            kind="error_dispatch",
            start=lambda: ErrorDispatch(store, wall, Ids.seeded(200 + epoch), default_limit=900),
        ),
        *more(store, owner, wall),
        ChildSpec(
            id="reconciler",
            kind="reconciler",
            start=lambda: Reconciler(
                store=store, owner=owner, clock=wall, zombie_threshold=lambda: zombie_threshold
            ),
        ),
    )
    root = SupervisorSpec(id="root", children=tuple(children), limit=RestartLimit(3, within=60))
    async with open_system(
        root,
        wall=lambda: wall.now().timestamp(),
        rng=Random(1),
        perf=None,
        faults=faults,
    ) as system:
        yield Tree(store, system, faults, board)
    store.close()


async def add_people(store: Store) -> None:
    """Store Ada and Bob."""
    people = [
        {"id": number, "username": name, "role": "normal", "created_at": START}
        for number, name in ((ADA, "ada"), (BOB, "bob"))
    ]
    await store.write(lambda conn: conn.execute(insert(schema.users), people).rowcount)


_CLOCK: ContextVar[trio.testing.MockClock] = ContextVar("clock")


def run_on_mock_clock(
    main: Callable[[], Awaitable[None]],
    clock: None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> None:
    """Run a test on a clock that jumps; the fixture `clock` gives it to those who hold it."""
    mock = trio.testing.MockClock(autojump_threshold=0)
    _CLOCK.set(mock)
    trio.run(main, clock=mock, instruments=instruments)


@pytest.fixture
async def clock() -> trio.testing.MockClock:
    """The clock this test runs on."""
    return _CLOCK.get()


@pytest.fixture
def components() -> dict[str, Component]:
    """What the test's nodes do: `{node_id: component}`."""
    return {}


@pytest.fixture
async def tree(
    store_url: URL,
    clock: trio.testing.MockClock,
    components: dict[str, Component],
) -> AsyncIterator[Tree]:
    """A running server in which Ada and Bob exist."""
    async with open_tree(store_url, clock, components) as running:
        await add_people(running.store)
        yield running
