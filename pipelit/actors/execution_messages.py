"""What the actor of an execution is told."""

from typing import TypeAlias

from pipelit.actors.runtime import Message, Request
from pipelit.engine.descendants import Descendants
from pipelit.engine.outcome import Failure, Outcome
from pipelit.engine.questions import Asking


class Cancel(Request[None], frozen=True):
    """End the execution as cancelled. Replies once it is written and all its nodes are gone."""


class AttemptEnded(Message, frozen=True):
    """A node's task ended. `result` is None when it was cut off."""

    node_id: str
    result: Outcome | Failure | None


class Due(Message, frozen=True):
    """A retry's time `at` (Unix seconds) has come, whatever the wall clock has done meanwhile."""

    at: float


class Waited(Message, frozen=True):
    """A timed wait is over."""

    node_id: str


class SwitchedOff(Message, frozen=True):
    """The execution is to end: its time is over, or it was stopped by its id."""


class Suspended(Message, frozen=True):
    """A node waits for its children."""

    node_id: str


class Resumed(Message, frozen=True):
    """The children that a node waited for have ended."""

    node_id: str


class Counted(Message, frozen=True):
    """What the descendants have used so far. `gone`: none of them is left, and none will come."""

    descendants: Descendants
    gone: bool = False


class WriteOff(Message, frozen=True):
    """Nodes that were told to stop had their time."""


class Worded(Message, frozen=True):
    """A question has its words. `prompt`: of a confirmation; None if it has none."""

    asking: Asking
    prompt: str | None = None


class TakeAnswers(Request[None], frozen=True):
    """Answers may have been stored. Replies when the run has gone on with them, or has ended."""


class AnswersDue(Message, frozen=True):
    """Time to look for answers that another server took."""


ExecutionMessage: TypeAlias = (
    Cancel
    | AttemptEnded
    | Due
    | Waited
    | SwitchedOff
    | Suspended
    | Resumed
    | Counted
    | WriteOff
    | Worded
    | TakeAnswers
    | AnswersDue
)
