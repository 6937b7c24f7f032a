"""Who is where: every live cell by path, who watches whom, and what all cells share."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from pipelit.actors.runtime.envelope import Envelope
from pipelit.actors.runtime.errors import ActorExists
from pipelit.actors.runtime.messages import Exit
from pipelit.actors.runtime.records import DetailValue, RecordBus, Source

if TYPE_CHECKING:
    from pipelit.actors.runtime.lifecycle import Cell
    from pipelit.actors.runtime.system import System


class Faults(Protocol):
    """Where a test or a simulation may interfere. Production has none."""

    def before_turn(self, path: str) -> None:
        """Raise to crash the actor at *path* at the beginning of a turn."""

    def reply_delay(self, path: str) -> float:
        """Return how many seconds to hold back a reply of the actor at *path*."""


class Stuck(Protocol):
    """Who wants to know when an actor should be gone."""

    def expect_end(self, cell: "Cell", at: float) -> None:
        """Expect *cell* to be gone at *at*, on the Trio clock."""

    def forget(self, cell: "Cell") -> None:
        """Note that *cell* is gone."""


class Directory:
    """One per system. Invariant: a path has at most one cell, and a cell here has not ended."""

    def __init__(
        self,
        system: "System",
        bus: RecordBus,
        *,
        wall: Callable[[], float],
        rng: Random,
        stuck: Stuck,
        faults: Faults | None,
    ) -> None:
        self.system = system
        self.bus = bus
        self.wall = wall
        self.rng = rng
        self.stuck = stuck
        self.faults = faults
        self.cells: dict[str, Cell] = {}
        self.lives = 0
        """How many lives began; a life is over with its last record."""
        # {target: {watcher: what to tell it}}
        self._watchers: dict[str, dict[Any, Callable[[Exit], None]]] = {}

    def add(self, cell: "Cell") -> None:
        """Give *cell* its path. Raises `ActorExists` if somebody lives there."""
        if cell.path in self.cells:
            raise ActorExists(cell.path)
        self.cells[cell.path] = cell
        self.lives += 1

    def remove(self, cell: "Cell", end: Exit, *, final: bool) -> None:
        """Free the path of *cell*; tell its watchers unless it may come back (passivation)."""
        del self.cells[cell.path]
        if final:
            self.tell_watchers(cell.path, end)

    def find(self, path: str) -> "Cell | None":
        """Return the cell that lives at *path*."""
        return self.cells.get(path)

    def resolve(self, path: str) -> "Cell | None":
        """Return the cell at *path*; a family starts the member that is missing."""
        cell = self.cells.get(path)
        if cell is None:
            parent = self.parent_of(path)
            if parent is not None:
                return parent.summon(path.rpartition("/")[2])
        return cell

    def parent_of(self, path: str) -> "Cell | None":
        """Return the live parent of *path*, whether or not somebody lives there."""
        return self.cells.get(path.rpartition("/")[0] or "/") if path != "/" else None

    def watch(self, path: str, watcher: object, tell: Callable[[Exit], None]) -> bool:
        """Register *tell* for the end of *path*; `False` if nobody lives there or will."""
        if self.cells.get(path) is None:
            parent = self.parent_of(path)
            if parent is None or not parent.is_family or parent.is_ending:
                return False
        self._watchers.setdefault(path, {})[watcher] = tell
        return True

    def unwatch(self, path: str, watcher: object) -> None:
        """Forget what *watcher* wanted to know about *path*."""
        watchers = self._watchers.get(path)
        if watchers is not None:
            watchers.pop(watcher, None)
            if not watchers:
                del self._watchers[path]

    def tell_watchers(self, path: str, end: Exit) -> None:
        """Tell everybody who watches *path*, once."""
        for tell in self._watchers.pop(path, {}).values():
            tell(end)

    def tell_watchers_below(self, path: str, end: Exit) -> None:
        """Tell the watchers of passivated members of the family at *path*, which ends."""
        for target in [t for t in self._watchers if t.startswith(path + "/")]:
            self.tell_watchers(target, end)

    @property
    def watch_count(self) -> int:
        """How many watches there are."""
        return sum(map(len, self._watchers.values()))

    def dead_letter(self, path: str, envelope: Envelope, cause: str) -> None:
        """Record that *envelope* reached nobody at *path*."""
        sender = envelope.sender
        self.bus.dead_letter(
            self.source(path),
            message_type=type(envelope.message).__name__,
            sender=None if sender is None else sender.path,
            cause=cause,
        )

    def ask_timed_out(self, path: str, request: object, timeout: float) -> None:
        """Record that a reply of *path* did not come before its deadline."""
        detail: dict[str, DetailValue] = {
            "message_type": type(request).__name__,
            "waited_ms": round(timeout * 1000),
        }
        self.bus.emit("ask_timeout", self.source(path), detail)

    def source(self, path: str) -> Source:
        """Return whom a record about *path* is about, even if nobody lives there."""
        cell = self.cells.get(path)
        if cell is not None:
            return cell.source
        parent = path.rpartition("/")[0] or "/"
        return Source(actor=path, kind="unknown", parent=parent, incarnation=0)
