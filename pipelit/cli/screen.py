"""Shows the lines of a run: a live area on a terminal, plain lines everywhere else."""

import signal
import time
from collections.abc import AsyncIterator
from functools import partial

import click
import trio
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pipelit.cli.client import Client, ServerRefusedError
from pipelit.cli.events import Item, Lost, Restored, follow
from pipelit.cli.render import Line, View

REFRESH_SECONDS = 0.1


async def stream_run(client: Client, execution_id: str, *, cancel_on: AsyncIterator[int]) -> View:
    """Watch an execution that can be cancelled from here.

    The first of the signals *cancel_on* cancels the execution on the server; the view stays until
    the server says that it ended.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_at_signal, client, execution_id, cancel_on)
        view = await watch(client, execution_id)
        nursery.cancel_scope.cancel("the run ended")
    return view


async def watch(client: Client, execution_id: str) -> View:
    """Show one execution from its first event to its last and return what was seen."""
    console = Console(highlight=False)
    view = View(width=min(console.width, 120))
    async with follow(client.target, execution_id) as items:
        if console.is_terminal and not console.is_dumb_terminal:
            await _show_live(items, view, console)
        else:
            await _show_plain(items, view)
    return view


async def _cancel_at_signal(client: Client, execution_id: str, signals: AsyncIterator[int]) -> None:
    async for _ in signals:
        break
    else:
        return
    # From here on a second Ctrl-C ends this program, whatever the server does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    click.echo("Cancelling the execution on the server …", err=True)
    try:
        await client.post(f"/executions/{execution_id}/cancel/")
    except ServerRefusedError as error:
        error.show()


async def _show_plain(items: AsyncIterator[Item], view: View) -> None:
    async for item in items:
        for line in _lines(item, view):
            click.echo(line.text)


async def _show_live(items: AsyncIterator[Item], view: View, console: Console) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tick, live, view)
            async for item in items:
                for line in _lines(item, view):
                    if not line.transient:
                        console.print(Text(line.text, style=line.style))
                _refresh(live, view)
            nursery.cancel_scope.cancel("the run ended")


def _lines(item: Item, view: View) -> list[Line]:
    match item:
        case Lost(delay=delay):
            return [Line(f"Connection lost; trying again in {delay:.0f} s …", "yellow")]
        case Restored():
            return [Line("Connected again.", "yellow")]
        case _:
            return view.feed(item)


async def _tick(live: Live, view: View) -> None:
    while True:
        await trio.sleep(REFRESH_SECONDS)
        _refresh(live, view)


def _refresh(live: Live, view: View) -> None:
    text = partial(Text, no_wrap=True, overflow="ellipsis")
    lines = [text(line.text, style=line.style) for line in view.live(time.time())]
    live.update(Group(*lines), refresh=True)
