"""Tells who works on the ends of executions that there is a new one. The rows are the truth."""

from contextlib import suppress

from pipelit.actors import delivery, paths, roll_up
from pipelit.actors.runtime import ActorError, Message, System


class FailureNoted(Message, frozen=True):
    """An execution has failed: somebody may want to handle it."""


def wake(system: System, *, failed: bool, replies: bool = False) -> None:
    """Have the end that was just written followed up at once. `replies`: one is to be sent."""
    roll_up.wake(system)
    if replies:
        delivery.wake(system)
    if failed:
        with suppress(ActorError):  # the next round finds it
            system.ref(paths.ERRORS).tell(FailureNoted())
