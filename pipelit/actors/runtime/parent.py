"""What supervisors and families share: children in a nursery, and a parent that only listens.

A parent waits for nothing but news of its children, so no child can block it.
"""

from abc import abstractmethod
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial

import trio

from pipelit.actors.runtime.directory import Directory
from pipelit.actors.runtime.envelope import Envelope
from pipelit.actors.runtime.errors import ActorDied, RestartLimitExceeded
from pipelit.actors.runtime.lifecycle import Cell
from pipelit.actors.runtime.messages import Exit, ExitReason
from pipelit.actors.runtime.records import Detail
from pipelit.actors.runtime.restart import Policy, Window


class ParentCell(Cell):
    """A cell with children. They run in its nursery and report to it.

    Invariant: `children` holds exactly the children that have not ended.
    """

    crash_reason = ExitReason.ESCALATED

    def __init__(
        self,
        directory: Directory,
        parent: Cell | None,
        name: str,
        *,
        kind: str,
        policy: Policy,
        window: Window,
        detail: Detail,
    ) -> None:
        super().__init__(
            directory, parent, name, kind=kind, policy=policy, window=window, detail=detail
        )
        self.children: dict[str, Cell] = {}
        self._unlaunched: dict[str, Cell] = {}
        self._nursery: trio.Nursery | None = None
        self._context: Context | None = None
        self._news = trio.lowlevel.ParkingLot()
        self.failed_by: RestartLimitExceeded | None = None

    def deliver(self, envelope: Envelope) -> None:
        """Refuse: a parent takes no messages."""
        if envelope.slot is not None:
            raise ActorDied(self.path)
        self.directory.dead_letter(self.path, envelope, "takes no messages")

    def adopt(self, child: Cell, *, runs_elsewhere: bool = False) -> None:
        """Count *child* among the children; `launch` starts it unless it *runs elsewhere*."""
        self.children[child.path] = child
        if not runs_elsewhere:
            self._unlaunched[child.path] = child

    def launch(self, child: Cell) -> None:
        """Start *child*; if there is no nursery yet, it is started when there is."""
        if self._nursery is None or self._context is None:
            return
        del self._unlaunched[child.path]
        # Not in the context of whoever asked: a child inherits nobody's turn or log fields.
        self._context.run(partial(self._nursery.start_soon, child.run, name=child.path))

    def child_changed(self) -> None:
        """Look again at what was waited for."""
        self._news.unpark_all()

    def child_gone(self, child: Cell) -> None:
        """Forget *child*; the first one that gives up takes its parent along."""
        del self.children[child.path]
        self._unlaunched.pop(child.path, None)
        if child.failure is not None and not self.is_over:
            self.failed_by = child.failure
            self.emit("supervisor_escalated", child=child.path)
        self._news.unpark_all()

    def close(self, end: Exit) -> None:
        """Look up: the end was asked for."""
        self._news.unpark_all()

    def never_began(self) -> None:
        """End the children that were added in advance."""
        self._leave_nobody(self.stop_why or self.cancel_why or "parent ended")

    async def live(self) -> None:
        """Start the children, serve until the end is asked for or a child gives up, stop them."""
        self.failed_by = None
        self._context = copy_context()
        try:
            async with trio.open_nursery() as self._nursery:
                await self._start()
                if not self.is_over:
                    self.came_up()
                await self._until(lambda: self.is_over)
                await self._stop_children(self.stop_why or "sibling gave up")
        finally:
            self._nursery = None
            self._leave_nobody(self.stop_why or self.cancel_why or "parent ended")
        if self.failed_by is not None:
            raise self.failed_by

    @property
    def is_over(self) -> bool:
        """The end was asked for, or a child gave up: no more children are taken."""
        return self.failed_by is not None or self.is_ending

    @abstractmethod
    async def _start(self) -> None:
        """Start what is there from the beginning."""

    async def _stop_children(self, why: str) -> None:
        """Stop every child and wait until it is gone."""
        await self._stop(list(self.children.values()), why)

    async def _stop(self, children: list[Cell], why: str) -> None:
        for child in children:
            child.request_stop(why)
            if child.path in self._unlaunched:
                child.finish_unstarted(why)
        paths = [child.path for child in children]
        await self._until(lambda: self.children.keys().isdisjoint(paths))

    def _launch_waiting(self) -> None:
        for child in list(self._unlaunched.values()):
            self.launch(child)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._news.park()

    def _leave_nobody(self, why: str) -> None:
        # Who never ran, and, after a cancellation, who runs in somebody else's task.
        for child in list(self.children.values()):
            if child.path in self._unlaunched:
                child.finish_unstarted(why)
            else:
                child.cancel(why)
