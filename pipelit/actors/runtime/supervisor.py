"""Supervisors: start in order, let each child's fate be its own, escalate, stop in reverse."""

from functools import partial

from pipelit.actors.runtime.cell import ActorCell
from pipelit.actors.runtime.directory import Directory
from pipelit.actors.runtime.errors import ActorDied
from pipelit.actors.runtime.family import FamilyCell
from pipelit.actors.runtime.lifecycle import Cell
from pipelit.actors.runtime.messages import Exit, ExitReason
from pipelit.actors.runtime.parent import ParentCell
from pipelit.actors.runtime.restart import OnLimit, Policy, Restart, RestartLimit, Window
from pipelit.actors.runtime.spec import AnySpec, ChildSpec, FamilySpec, SupervisorSpec


class SupervisorCell(ParentCell):
    """one_for_one: a child's end concerns nobody but the child, until it gives up."""

    def __init__(
        self,
        directory: Directory,
        parent: ParentCell | None,
        spec: SupervisorSpec,
        window: Window | None = None,
    ) -> None:
        self._spec = spec
        self._statics: list[Cell] = []
        # Nobody is above the root: its failure is the system's.
        restart = Restart.TEMPORARY if parent is None else Restart.PERMANENT
        super().__init__(
            directory,
            parent,
            spec.id,
            kind="supervisor",
            policy=Policy(restart=restart, grace=spec.grace, backoff=spec.backoff),
            window=window or Window(spec.limit),
            detail=spec.detail,
        )

    def add(self, spec: AnySpec) -> Cell:
        """Start a dynamic child. Its path is in use from now on.

        Raises:
            ActorDied: this supervisor is stopping.
            ActorExists: the path is in use.
        """
        self.check_open()
        limit = RestartLimit(self._spec.limit.restarts, self._spec.limit.within, OnLimit.STOP_CHILD)
        child = build_cell(self.directory, self, spec, Window(limit))
        self.adopt(child)
        self.launch(child)
        return child

    def check_open(self) -> None:
        """Raise `ActorDied` if no more children are taken."""
        if self.is_over:
            raise ActorDied(self.path, Exit(ExitReason.SHUTDOWN, self.stop_why))

    async def _start(self) -> None:
        shared = Window(self._spec.limit)
        self._statics = []
        for spec in self._spec.children:  # all mailboxes are there before anybody runs
            self._statics.append(build_cell(self.directory, self, spec, shared))
            self.adopt(self._statics[-1])
        for child in self._statics:
            if child.path in self._unlaunched:
                self.launch(child)
            await self._until(partial(self._is_settled, child))
            if self.is_over:
                return
        self._launch_waiting()

    def _is_settled(self, child: Cell) -> bool:
        return child.settled.is_set() or self.is_over

    async def _stop_children(self, why: str) -> None:
        dynamic = [c for c in self.children.values() if c not in self._statics]
        await self._stop(dynamic, why)
        for child in reversed(self._statics):
            await self._stop([child], why)


def build_cell(directory: Directory, parent: ParentCell, spec: AnySpec, window: Window) -> Cell:
    """Register the cell that *spec* describes under *parent*.

    *window* counts its restarts unless the spec has an own limit.
    """
    match spec:
        case SupervisorSpec():
            return SupervisorCell(directory, parent, spec, window)
        case FamilySpec():
            return FamilyCell(directory, parent, spec, window)
        case ChildSpec():
            return ActorCell(
                directory,
                parent,
                spec.id,
                spec.start,
                kind=spec.kind,
                policy=Policy(
                    restart=spec.restart,
                    grace=spec.grace,
                    backoff=spec.backoff,
                    decide=spec.decide,
                ),
                window=window if spec.limit is None else Window(spec.limit),
                mailbox=spec.mailbox,
                detail=spec.detail,
            )
