"""Waiting for what no event tells."""

from collections.abc import Callable

import trio


async def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Let others run until *condition* is true; fail when it takes too long."""
    with trio.fail_after(seconds):
        while True:
            if condition():
                return
            await trio.lowlevel.checkpoint()
