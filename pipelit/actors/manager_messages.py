"""What the manager is told, and what its own tasks tell it."""

from typing import TypeAlias

from pipelit.actors.runtime import Exit, Message, Request
from pipelit.engine.changes import Ending


class Start(Message, frozen=True):
    """Pending executions to run, in this order, as slots are free. Known ones are ignored."""

    execution_ids: tuple[str, ...]


class StartChildren(Message, frozen=True):
    """Pending child executions to run at once: a child takes no slot. Known ones are ignored."""

    parent_id: str
    execution_ids: tuple[str, ...]


class Run(Request[None], frozen=True):
    """Run a pending execution as soon as a slot is free. Replies when it does not run any more."""

    execution_id: str


class Join(Request[None], frozen=True):
    """As `Run`, for an execution whose status is not known: it may run, or have ended, already."""

    execution_id: str


class TakeUp(Message, frozen=True):
    """A running execution without a live owner. `crashed`: its owner did not release it."""

    execution_id: str
    crashed: bool


class GiveUp(Message, frozen=True):
    """An execution without a live owner that ends now instead of being taken up."""

    execution_id: str
    ending: Ending


class CancelExecution(Request[None], frozen=True):
    """Cancel an execution. Replies when it is terminal and everything in it is gone."""

    execution_id: str


class TakeAnswers(Request[None], frozen=True):
    """An answer was stored. Replies when its execution has gone on with it, or does not run."""

    execution_id: str


class AnswersTaken(Message, frozen=True):
    """The actor of an execution has gone on with the answers it found."""

    execution_id: str


class Exited(Message, frozen=True):
    """The actor of an execution ended."""

    execution_id: str
    exit: Exit


class Adopted(Message, frozen=True):
    """A running execution is ours now. `verdict`: how it ends instead of going on."""

    execution_id: str
    verdict: Ending | None = None
    parent_id: str | None = None


class Released(Message, frozen=True):
    """An execution that is not to run here: whoever waits for it may go on."""

    execution_id: str


ManagerMessage: TypeAlias = (
    Start
    | StartChildren
    | Run
    | Join
    | TakeUp
    | GiveUp
    | CancelExecution
    | TakeAnswers
    | AnswersTaken
    | Exited
    | Adopted
    | Released
)
