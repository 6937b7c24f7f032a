"""Running trio for a command: what ends a command comes out of its exception groups."""

from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar, TypeVarTuple, Unpack

import click
import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

ENDINGS = (KeyboardInterrupt, SystemExit, BrokenPipeError, click.ClickException)
"""What ends a command, the stronger first: Ctrl-C, an exit code, a reader that left, an error."""


def run_trio(command: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
    """Run an async command; whatever ends it leaves its exception group."""
    try:
        return trio.run(command, *args)
    except BaseExceptionGroup as group:
        found = list(leaves(group))
        for kind in ENDINGS:
            for error in found:
                if isinstance(error, kind):
                    raise error from None
        raise


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions inside a group, or the exception itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
