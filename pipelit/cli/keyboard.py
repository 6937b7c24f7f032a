"""Single keys from a terminal, as they are pressed."""

import os
import sys
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import trio

from pipelit.cli.top_state import Key

_SEQUENCES = {
    "\x1b[A": Key.UP,
    "\x1b[B": Key.DOWN,
    "\x1bOA": Key.UP,
    "\x1bOB": Key.DOWN,
    "\x1b": Key.ESCAPE,
    "\t": Key.TAB,
    "\r": Key.ENTER,
    "\n": Key.ENTER,
    "k": Key.UP,
    "j": Key.DOWN,
    "c": Key.CANCEL,
    "y": Key.YES,
    "q": Key.QUIT,
}


def parse_keys(text: str) -> Iterator[Key]:
    """Yield the keys in what a terminal sent; what means nothing is passed over."""
    rest = text
    while rest:
        size = next((n for n in (3, 1) if rest[:n] in _SEQUENCES), 1)
        found = _SEQUENCES.get(rest[:size])
        if found is not None:
            yield found
        rest = rest[size:]


@contextmanager
def single_keys() -> Iterator[int]:
    """Let the terminal hand over each key at once, unseen; as before at the end."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def read_keys(descriptor: int) -> AsyncIterator[Key]:
    """Yield keys until the terminal is gone."""
    while True:
        await trio.lowlevel.wait_readable(descriptor)
        data = os.read(descriptor, 1024)
        if not data:
            return
        for key in parse_keys(data.decode(errors="replace")):
            yield key
