"""What is said when an execution cannot be cancelled now. Contract: README.md §4, §12."""

from typing import Any, cast

import pytest

from pipelit.actors.runtime import ActorDied, AskTimeout, MailboxFull
from pipelit.errors import Unavailable
from pipelit.services.executions import ExecutionsService


class Manager:
    """Refuses every request in its own way."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def ask(self, message: object, *, timeout: float) -> None:
        raise self.error


class OneActive:
    """A store that finds one active execution."""

    async def read(self, query: object) -> list[str]:
        return ["e"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MailboxFull("manager", 1), "Failed to enqueue workflow execution."),
        (AskTimeout("manager", 40), "Failed to enqueue workflow execution."),
        (ActorDied("manager"), "Server is shutting down."),
    ],
)
async def test_only_a_stopping_server_says_that_it_stops(error: Exception, said: str) -> None:
    """A busy engine takes no work; its manager is gone for good only when the server stops."""
    manager = cast("Any", Manager(error))
    service = ExecutionsService(cast("Any", OneActive()), cast("Any", None), manager=manager)

    with pytest.raises(Unavailable) as refused:
        await service.cancel_all_of(1)

    assert refused.value.detail == said
