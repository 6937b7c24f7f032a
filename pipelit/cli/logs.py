"""`pipelit logs`: supervision records, and those that come. Contract: operations.md §1, §4."""

import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import click
import msgspec
import trio

from pipelit.cli import INTERRUPTED
from pipelit.cli.client import Client, Target, UnreachableError
from pipelit.cli.options import call, server_command
from pipelit.cli.render import clean

PAGE = 1000
LOOK_SECONDS = 1.0
LOST_SECONDS = 5.0


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with the records that come.")
@click.option("--kind", help="Only records of actors of this kind.")
@click.option("--event", help="Only records of this event, for instance actor_crashed.")
@click.option("--actor", metavar="PATH", help="Only records of actors whose path starts so.")
@click.option("--limit", type=click.IntRange(0, 10_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one record per line as JSON.")
@server_command
def logs(
    target: Target,
    follow: bool,
    kind: str | None,
    event: str | None,
    actor: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show what happened to actors, the newest at the end."""

    def wanted(record: Any) -> bool:
        is_of = all(want in (None, record[key]) for key, want in (("kind", kind), ("event", event)))
        return is_of and record["actor"].startswith(actor or "")

    def show(record: Any) -> None:
        click.echo(msgspec.json.encode(record).decode() if as_json else tell(record))

    async def action(client: Client) -> None:
        newest, last = None, deque[Any](maxlen=limit)
        async for newest in _read(client):
            last.extend([newest] if wanted(newest) else [])
        for record in last:
            show(record)
        if follow:
            async for record in _follow(client, newest):
                if wanted(record):
                    show(record)

    try:
        call(target, action)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


async def _read(client: Client) -> AsyncIterator[Any]:
    """Yield the records that the server keeps, which are some thousand."""
    since = 0
    while True:
        page = await client.get("/system/supervision/", since=since, limit=PAGE)
        for record in page["items"]:
            yield record
        if len(page["items"]) < PAGE:
            return
        since = page["items"][-1]["seq"]


async def _follow(client: Client, newest: Any) -> AsyncGenerator[Any]:
    """Yield what comes after *newest*, across restarts of the server, until cancelled."""
    while True:
        try:
            # The last known record is asked for again: if it is not there, another process
            # answers, and counts from 1.
            since = newest["seq"] - 1 if newest else 0
            page = await client.get("/system/supervision/", since=since, limit=PAGE)
        except UnreachableError as error:
            click.echo(f"{error.message.splitlines()[0]} Trying again …", err=True)
            await trio.sleep(LOST_SECONDS)
            continue
        items = page["items"]
        if newest and _is_another_process(items, newest):
            click.echo("The server was started again.", err=True)
            newest = None
            continue
        if newest and items[0]["seq"] > newest["seq"]:
            click.echo(f"{items[0]['seq'] - newest['seq'] - 1} records were missed.", err=True)
        elif newest:
            items = items[1:]
        for record in items:
            newest = record
            yield record
        if len(items) < PAGE - 1:
            await trio.sleep(LOOK_SECONDS)


def _is_another_process(items: Any, newest: Any) -> bool:
    if not items:
        return True
    first = items[0]
    return bool(first["seq"] == newest["seq"] and first["timestamp"] != newest["timestamp"])


def tell(record: Any) -> str:
    """Say a record in one line for people."""
    moment = time.strftime("%H:%M:%S", time.localtime(record["timestamp"]))
    words = [moment, record["event"], record["actor"]]
    if record["error"]:
        words.append(f"{record['error']['type']}: {record['error']['message']}")
    elif record["reason"] not in (None, "normal"):
        words.append(record["reason"])
    ids = ("execution_id", "schedule_id", "thread_id", "request_id")
    words += [f"{k}={v}" for k, v in record["detail"].items() if k not in ids and v is not None]
    return clean("  ".join(map(str, words)))
