"""Cancelling is a feature: a call may be cancelled at each of its steps."""

from functools import partial

import httpx2
import trio

from pipelit.llm.scripted import Say, serve_scripted
from tests.llm.asking import Asker, request, spec


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when a task has run so many steps."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, steps: int) -> None:
        self._task = task
        self._scope = scope
        self._left = steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


async def test_a_call_can_be_cancelled_at_every_step(
    http: httpx2.AsyncClient, nursery: trio.Nursery
) -> None:
    """Wherever it is cancelled, the call ends there and the client serves the next one."""
    script = Say(("12*17 ", "is ", "204."))
    url = await nursery.start(partial(serve_scripted, lambda _: script))
    asker = Asker(http, spec(url))

    cancelled = 0
    for steps in range(1, 200):
        with trio.CancelScope() as scope:
            instrument = CancelAtStep(trio.lowlevel.current_task(), scope, steps)
            trio.lowlevel.add_instrument(instrument)
            try:
                await asker.ask(request())
            finally:
                trio.lowlevel.remove_instrument(instrument)
        if not scope.cancelled_caught:
            break
        cancelled += 1
        if steps % 5 == 0:
            assert (await asker.ask(request())).text == "12*17 is 204."

    assert cancelled > 5
    assert (await asker.ask(request())).text == "12*17 is 204."
