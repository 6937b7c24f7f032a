"""The demo's stage: scripted model, server, first account and workflow, in one data directory."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import click
import httpx2
import msgspec
import trio

from pipelit.cli.build import build_workflow
from pipelit.cli.client import TIMEOUT, Client, Target
from pipelit.cli.demo.graph import EDGES, HEAD, build_nodes, demo_model
from pipelit.cli.demo.server import STOP_SECONDS, ServerProcess
from pipelit.cli.remember import load_login, save_login
from pipelit.llm.scripted import serve_scripted

CREDENTIAL = "Scripted model"


class Stage(msgspec.Struct, frozen=True):
    """Everything stands: a server that takes work, and a client that may use it."""

    server: ServerProcess
    client: Client


@asynccontextmanager
async def open_stage(directory: Path, port: int) -> AsyncIterator[Stage]:
    """Set the stage in *directory*, new or as it was left; clear it at the end of the block.

    Args:
        directory: absolute; it exists.
        port: of the server, on the loopback interface.
    """
    server = ServerProcess(directory, port)
    async with trio.open_nursery() as nursery:
        memo = directory / "model.port"
        model_url = await _start_model(nursery, _read_port(memo))
        try:
            async with _anonymous(server.url) as visitor:
                await server.start(visitor)
                _write_port(memo, model_url)
                target = await _find_account(visitor, directory / "login.json")
            async with Client.open(target) as client:
                await _install(client, model_url)
                yield Stage(server, client)
        finally:
            with trio.move_on_after(2 * STOP_SECONDS, shield=True):
                await server.stop()
            nursery.cancel_scope.cancel("the demo is over")


@asynccontextmanager
async def _anonymous(url: str) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(base_url=url, timeout=TIMEOUT, trust_env=False) as http:
        yield Client(http, Target(url=url))


async def _start_model(nursery: trio.Nursery, port: int) -> str:
    """Start the scripted model where it listened last time: unfinished runs look for it there."""
    try:
        return str(await nursery.start(partial(serve_scripted, demo_model, port=port)))
    except* OSError:  # somebody else listens there now
        pass
    return str(await nursery.start(partial(serve_scripted, demo_model)))


def _read_port(memo: Path) -> int:
    try:
        return int(memo.read_text())
    except (OSError, ValueError):
        return 0


def _write_port(memo: Path, url: str) -> None:
    memo.write_text(str(urlsplit(url).port))


async def _find_account(client: Client, login: Path) -> Target:
    status = await client.get("/auth/setup-status/")
    if status["needs_setup"]:
        body = {"username": "demo", "password": secrets.token_urlsafe(24)}
        answer = await client.post("/auth/setup/", body)
        save_login(login, Target(url=client.target.url, key=answer["key"]))
    known = load_login(login)
    if known is None:
        raise click.ClickException(f"{login.parent} holds data of another server; choose another.")
    target = Target(url=client.target.url, key=known.key)
    save_login(login, target)
    return target


async def _install(client: Client, model_url: str) -> None:
    """Make credential and workflow unless they are there; tell them where the model is."""
    detail = {"api_key": "scripted-needs-no-key", "base_url": model_url}
    page = await client.get("/credentials/", limit=1000)
    for known in page["items"]:
        if known["name"] == CREDENTIAL:
            if known["detail"]["base_url"] != model_url:
                await client.patch(f"/credentials/{known['id']}/", {"detail": detail})
            return
    credential = await client.post(
        "/credentials/", {"name": CREDENTIAL, "credential_type": "llm", "detail": detail}
    )
    await build_workflow(client, HEAD, build_nodes(credential["id"]), EDGES)
