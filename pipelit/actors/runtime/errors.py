"""What a sender, an asker or a parent may be told. Each error carries the data of its message."""

from collections.abc import Sequence

import trio

from pipelit.actors.runtime.messages import Exit
from pipelit.errors import PipelitError


class ActorError(PipelitError):
    """Root of the runtime's errors."""


class ActorDied(ActorError):
    """The actor is gone for good, or nobody lives at this path."""

    def __init__(self, path: str, end: Exit | None = None) -> None:
        super().__init__(f"{path}: {self._state(end)}")
        self.path = path
        self.exit = end

    def _state(self, end: Exit | None) -> str:
        return "no such actor" if end is None else f"ended: {end.reason}"


class ActorRestarting(ActorDied):
    """Your request was lost in a crash and the actor comes back.

    Repeat it only if repeating is harmless: it may have been half done.
    """

    def _state(self, end: Exit | None) -> str:
        return "crashed and restarts"


class ActorExists(ActorError):
    """An actor already lives at the path where another was to start."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path}: already there")
        self.path = path


class MailboxFull(ActorError):
    """The mailbox is full and its policy said no. Nothing was delivered."""

    def __init__(self, path: str, capacity: int) -> None:
        super().__init__(f"{path}: mailbox full ({capacity})")
        self.path = path
        self.capacity = capacity


class AskTimeout(ActorError, trio.TooSlowError):
    """The deadline of an ask passed. The work may still happen."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__(f"{path}: no reply in {timeout:g} s")
        self.path = path
        self.timeout = timeout


class AskCycle(ActorError):
    """An ask whose target already waits, directly or not, for the asker. A bug."""

    def __init__(self, chain: Sequence[str]) -> None:
        super().__init__(" → ".join(chain))
        self.chain = tuple(chain)


class NoReply(ActorError):
    """The turn of a request ended without a reply and without `defer`. A bug of the callee."""

    def __init__(self, path: str, message_type: str) -> None:
        super().__init__(f"{path}: no reply to {message_type}")
        self.path = path
        self.message_type = message_type


class InboxClosed(ActorError):
    """An attached task was asked to stop. Leaving its block with this error is a clean end."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path}: asked to stop")
        self.path = path


class RestartLimitExceeded(ActorError):
    """A child failed too often, or with an error that must not be survived.

    `__cause__` is its last crash.
    """

    def __init__(self, path: str, restarts: int, within: float) -> None:
        super().__init__(f"{path}: gave up (limit {restarts} restarts in {within:g} s)")
        self.path = path
        self.restarts = restarts
        self.within = within
