"""`pipelit actors`: the supervision tree, once. Contract: operations.md §4."""

from typing import Any
from urllib.parse import quote

import click

from pipelit.cli.client import Client, Target
from pipelit.cli.options import call, echo_json, json_option, server_command
from pipelit.cli.table import show_table

HEADERS = ("ACTOR", "STATE", "RESTARTS", "MAIL", "KIND", "HANDLING")
PAGE = 1000
MOST = 10_000
"""Actors that are fetched; more make no list for people."""


@click.command()
@click.argument("path", required=False)
@click.option("--kind", help="Only actors of this kind, as a flat list.")
@json_option
@server_command
def actors(target: Target, path: str | None, kind: str | None, as_json: bool) -> None:
    """Show the tree of actors.

    With PATH only the actor there, and those directly below it.
    """
    if path is not None:
        _show_one(target, path, as_json=as_json)
        return

    async def action(client: Client) -> Any:
        return await fetch_actors(client, kind=kind)

    page = call(target, action)
    if as_json:
        echo_json(page)
        return
    show_table(HEADERS, [_row(actor) for actor in page["items"]], dispensable=2)
    if page["total"] > len(page["items"]):
        click.echo(f"{len(page['items'])} of {page['total']}.", err=True)


async def fetch_actors(client: Client, *, kind: str | None = None, most: int = MOST) -> Any:
    """Return the first *most* actors as one page."""
    items: list[Any] = []
    while True:
        page = await client.get("/system/actors/", kind=kind, limit=PAGE, offset=len(items))
        items += page["items"]
        if not page["items"] or len(items) >= min(page["total"], most):
            return {"items": items, "total": page["total"]}


async def fetch_actor(client: Client, path: str) -> Any:
    """Return the actor at *path*."""
    return await client.get(f"/system/actors/{quote(path.strip('/'), safe='/')}")


def _show_one(target: Target, path: str, *, as_json: bool) -> None:
    async def action(client: Client) -> Any:
        return await fetch_actor(client, path)

    actor = call(target, action)
    if as_json:
        echo_json(actor)
        return
    show_table(("FIELD", "VALUE"), list(describe(actor).items()))
    if actor["children"]:
        click.echo()
        show_table(HEADERS, [_row(child) for child in actor["children"]], dispensable=2)
    if actor["last_error"]:
        click.echo(f"\n{actor['last_error']['traceback']}", err=True)


def describe(actor: Any) -> dict[str, object]:
    """Return the facts about one actor, for people."""
    error = actor["last_error"]
    return {
        "actor": actor["path"],
        "kind": actor["kind"],
        "state": actor["state"],
        "started (UTC)": actor["started_at"],
        "incarnation": actor["incarnation"],
        "restarts": actor["restarts"],
        "mailbox": mailbox(actor),
        "handling": handling(actor),
        "handled": actor["messages_handled"],
        "last error": f"{error['type']}: {error['message']}" if error else None,
        **actor["detail"],
    }


def mailbox(actor: Any) -> str:
    """Return depth and capacity; nothing for who has no mailbox."""
    capacity = actor["mailbox_capacity"]
    return f"{actor['mailbox_depth']}/{capacity}" if capacity else ""


def handling(actor: Any) -> str:
    """Return the message in hand and since when."""
    return f"{actor['handling']} {actor['handling_ms']} ms" if actor["handling"] else ""


def _row(actor: Any) -> tuple[object, ...]:
    words = (actor[name] for name in ("path", "state", "restarts"))
    return (*words, mailbox(actor), actor["kind"], handling(actor))
