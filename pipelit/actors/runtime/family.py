"""Families: actors addressed by key, started by the first message, passivated when idle."""

import math
from functools import partial
from typing import Generic, Never, TypeVar

from pipelit.actors.runtime.cell import ActorCell
from pipelit.actors.runtime.directory import Directory
from pipelit.actors.runtime.messages import Exit, Message
from pipelit.actors.runtime.parent import ParentCell
from pipelit.actors.runtime.ref import ActorRef
from pipelit.actors.runtime.restart import Policy, Restart, Window
from pipelit.actors.runtime.spec import FamilySpec, check_id

M_contra = TypeVar("M_contra", bound=Message, contravariant=True)


class Family(Generic[M_contra]):
    """Where the members of one family are addressed."""

    def __init__(self, directory: Directory, path: str) -> None:
        self.path = path
        self._directory = directory

    def ref(self, key: str) -> ActorRef[M_contra]:
        """Return a ref to the member *key*. Costs nothing and starts nothing."""
        check_id(key)
        return ActorRef(self._directory, f"{self.path}/{key}")


class FamilyCell(ParentCell):
    """The parent of a family's members. Invariant: a key has at most one member."""

    is_family = True

    def __init__(
        self, directory: Directory, parent: ParentCell, spec: FamilySpec[Never], window: Window
    ) -> None:
        self._spec = spec
        super().__init__(
            directory,
            parent,
            spec.id,
            kind="family",
            policy=Policy(restart=Restart.PERMANENT, grace=math.inf, backoff=spec.backoff),
            window=window,
            detail={},
        )

    def summon(self, key: str) -> ActorCell | None:
        """Start the member *key*; `None` if the family is ending. Lookup and start are one step."""
        if self.is_over or not key:
            return None
        spec = self._spec
        member = ActorCell(
            self.directory,
            self,
            key,
            partial(spec.start, key),
            kind=spec.kind,
            policy=Policy(
                restart=spec.restart, grace=spec.grace, backoff=spec.backoff, decide=spec.decide
            ),
            window=Window(spec.limit),
            mailbox=spec.mailbox,
            detail={} if spec.detail is None else spec.detail(key),
            idle_after=spec.idle_after,
        )
        self.adopt(member)
        self.launch(member)
        return member

    def finish(self, end: Exit) -> None:
        """Free the path; tell those who watch members that are passivated just now."""
        super().finish(end)
        self.directory.tell_watchers_below(self.path, end)

    async def _start(self) -> None:
        self._launch_waiting()
