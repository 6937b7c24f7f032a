"""`pipelit top`: the whole server on one screen, live. Contract: operations.md §4."""

import sys
import time
from typing import Any

import click
import msgspec
import trio
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pipelit.cli.actors import fetch_actors
from pipelit.cli.client import Client, ServerRefusedError, Target, UnreachableError
from pipelit.cli.keyboard import read_keys, single_keys
from pipelit.cli.options import call, echo_json, server_command
from pipelit.cli.top_screen import Row, draw
from pipelit.cli.top_state import Cancel, Facts, Quit, View, clamp, press, rank_actors

MOST_ACTORS = 1000
MOST_RECORDS = 200
MOST_EXECUTIONS = 100


@click.command()
@click.option("--once", is_flag=True, help="Print one screen and leave.")
@click.option("--interval", type=click.FloatRange(0.2, 60), default=1.0, show_default=True,
              help="Seconds between two looks.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what the screen shows as JSON.")
@server_command
def top(target: Target, once: bool, interval: float, as_json: bool) -> None:
    """Watch executions, actors, restarts, mailboxes and the store."""
    if as_json:
        echo_json(call(target, fetch))
    elif once or not sys.stdin.isatty() or not sys.stdout.isatty():
        facts, console = call(target, fetch), Console(highlight=False)
        console.print(_paint(_rows(console, facts, View())))
    else:
        call(target, lambda client: _Top(client, interval).run())


async def fetch(client: Client) -> Facts:
    """Ask the server for everything the screen shows."""
    info = await client.get("/system/info/")
    running = info["executions"]["running"]
    # Newest first: the longest running ones are at the end.
    page = await client.get(
        "/executions/", status="running", limit=MOST_EXECUTIONS,
        offset=max(0, running - MOST_EXECUTIONS),
    )  # fmt: skip
    actors = (await fetch_actors(client, most=MOST_ACTORS))["items"]
    first = await client.get("/system/supervision/", limit=1)
    last = first["items"][0]["seq"] + first["total"] - 1 if first["items"] else 0
    records = await client.get(
        "/system/supervision/", since=max(0, last - MOST_RECORDS), limit=1000
    )
    return Facts(
        info=info,
        executions=tuple(reversed(page["items"])),
        actors=rank_actors(actors),
        restarts=sum(actor["restarts"] for actor in actors),
        records=tuple(records["items"][-MOST_RECORDS:]),
    )


class _Top:
    """The live screen. One task draws, one listens to keys."""

    def __init__(self, client: Client, interval: float) -> None:
        self._client = client
        self._interval = interval
        self._console = Console(highlight=False)
        self._view = View()
        self._facts: Facts | None = None
        self._trouble = ""

    async def run(self) -> None:
        self._facts = await fetch(self._client)
        with (
            single_keys() as keyboard,
            Live(console=self._console, screen=True, auto_refresh=False) as live,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look, live)
                await self._listen(keyboard, live, nursery)
                nursery.cancel_scope.cancel("the person left")

    async def _look(self, live: Live) -> None:
        while True:
            try:
                self._facts = await fetch(self._client)
                self._trouble = ""
            except (UnreachableError, ServerRefusedError) as error:
                # The last screen stays, with what is wrong in its last line.
                self._trouble = error.message.splitlines()[0]
            self._draw(live)
            await trio.sleep(self._interval)

    async def _listen(self, keyboard: int, live: Live, nursery: trio.Nursery) -> None:
        async for key in read_keys(keyboard):
            if self._facts is None:
                continue
            self._view, action = press(self._view, key, self._facts)
            if isinstance(action, Quit):
                return
            if isinstance(action, Cancel):
                nursery.start_soon(self._cancel, action.execution_id, live)
            self._draw(live)

    async def _cancel(self, execution_id: str, live: Live) -> None:
        try:
            await self._client.post(f"/executions/{execution_id}/cancel/")
            notice = f"{execution_id} is cancelled."
        except (UnreachableError, ServerRefusedError) as error:
            notice = error.message.splitlines()[0]
        self._view = msgspec.structs.replace(self._view, notice=notice)
        self._draw(live)

    def _draw(self, live: Live) -> None:
        if self._facts is None:
            return
        self._view = clamp(self._view, self._facts)
        view = self._view
        if self._trouble:
            view = msgspec.structs.replace(view, notice=self._trouble)
        live.update(_paint(_rows(self._console, self._facts, view)), refresh=True)


def _rows(console: Console, facts: Facts, view: View) -> list[Row]:
    return draw(facts, view, width=console.width, height=console.height, now=time.time())


def _paint(rows: list[Row]) -> Any:
    return Group(*(Text(row.text, style=row.style, no_wrap=True) for row in rows))
