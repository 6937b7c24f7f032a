"""Shows the lines of a run: a live area on a terminal, plain lines everywhere else."""

import time
from collections.abc import AsyncIterator
from functools import partial

import click
import msgspec
import trio
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pipelit.cli.client import Client, NotCancelledError, ServerRefusedError, UnreachableError
from pipelit.cli.events import Item, Lost, Restored, follow
from pipelit.cli.render import Line, View

REFRESH_SECONDS = 0.1
MAX_WIDTH = 120


class Screen:
    """Where one command writes while a run is shown. Lives in the command's task.

    Args:
        as_json: write one event per line as JSON, and words for people to standard error.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self._as_json = as_json
        self._console = Console(highlight=False)
        self._live: Live | None = None

    async def watch(self, client: Client, execution_id: str) -> View:
        """Show one execution from its first event to its last and return what was seen."""
        view = View(width=min(self._console.width, MAX_WIDTH))
        async with follow(client.target, execution_id) as items:
            if self._as_json:
                await self._show_json(items, view)
            elif self._console.is_terminal and not self._console.is_dumb_terminal:
                await self._show_live(items, view)
            else:
                await self._show_plain(items, view)
        return view

    async def watch_and_cancel(
        self, client: Client, execution_id: str, signals: AsyncIterator[int]
    ) -> View:
        """Watch an execution; the first of *signals* cancels it on the server, the second leaves.

        The view stays until the server says that the execution ended.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_at_signal, client, execution_id, signals)
            view = await self.watch(client, execution_id)
            nursery.cancel_scope.cancel("the run ended")
        return view

    def say(self, text: str, style: str = "") -> None:
        """Write a line; above the live area if there is one now."""
        if self._live is not None:
            self._live.console.print(Text(text, style=style))
        else:
            click.echo(text, err=self._as_json)

    async def _show_json(self, items: AsyncIterator[Item], view: View) -> None:
        async for item in items:
            if not isinstance(item, Lost | Restored):
                view.feed(item)
                click.echo(msgspec.json.encode(item).decode())

    async def _show_plain(self, items: AsyncIterator[Item], view: View) -> None:
        async for item in items:
            for line in _lines(item, view):
                self.say(line.text)

    async def _show_live(self, items: AsyncIterator[Item], view: View) -> None:
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            self._live = live
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_tick, live, view)
                    async for item in items:
                        for line in _lines(item, view):
                            if not line.transient:
                                self.say(line.text, line.style)
                        _refresh(live, view)
                    nursery.cancel_scope.cancel("the run ended")
            finally:
                self._live = None

    async def _cancel_at_signal(
        self, client: Client, execution_id: str, signals: AsyncIterator[int]
    ) -> None:
        async for _ in signals:
            break
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel, client, execution_id)
            async for _ in signals:
                # The second Ctrl-C ends this program, whatever the server does.
                raise KeyboardInterrupt

    async def _cancel(self, client: Client, execution_id: str) -> None:
        self.say("Cancelling the execution on the server …", "yellow")
        try:
            await client.post(f"/executions/{execution_id}/cancel/")
        except ServerRefusedError as error:
            self.say(error.message, "red")
        except UnreachableError as error:
            raise NotCancelledError(error, execution_id) from None


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
