"""How services reach the actors of scheduled jobs."""

from collections.abc import Callable, Iterable
from contextlib import suppress

import trio

from pipelit.actors.runtime import ActorError, ActorRef
from pipelit.actors.schedules import Begin, ScheduleMessage, Wake

START_TIMEOUT = 5.0


class ScheduleActors:
    """Tells the actors of jobs about changes. What was committed counts, whatever they hear."""

    def __init__(self, ref: Callable[[str], ActorRef[ScheduleMessage]]) -> None:
        self._ref = ref

    def wake(self, job_ids: Iterable[str]) -> None:
        """Let these jobs look at their rows, which have changed or are gone. Never raises.

        A message that does not arrive costs no tick: the job's next look is at its time.
        """
        for job_id in job_ids:
            with suppress(ActorError):
                self._ref(job_id).tell(Wake())

    async def start(self, job_id: str) -> bool:
        """Bring a new job's actor to work; False if it cannot start.

        Not cancellable, at most `START_TIMEOUT`: nobody would know what became of the job.
        """
        with trio.CancelScope(shield=True):
            try:
                await self._ref(job_id).ask(Begin(), timeout=START_TIMEOUT)
            except ActorError:
                return False
        return True
