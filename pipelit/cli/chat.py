"""`pipelit chat` and `pipelit run`: start an execution and watch it. Contract: operations.md §4."""

import json
import signal
import sys
from typing import Any
from urllib.parse import quote

import click
import trio

from pipelit.cli.client import Client, Target
from pipelit.cli.options import call, events_option, server_command
from pipelit.cli.render import View
from pipelit.cli.screen import Screen


@click.command()
@click.argument("slug")
@click.argument("text", required=False)
@events_option
@server_command
def chat(target: Target, slug: str, text: str | None, as_json: bool) -> None:
    """Send a message and watch its run; Ctrl-C cancels it.

    Without TEXT: a conversation. Ctrl-C twice leaves at once.
    """
    if text is not None:
        _say(target, slug, text, as_json=as_json)
        return
    while (line := _next_message()) is not None:
        if line.strip():
            _say(target, slug, line, as_json=as_json, conversation=True)


@click.command()
@click.argument("slug")
@click.option("--text", default="", help="Text for the manual trigger.")
@click.option("--payload", metavar="JSON", help="JSON object for the manual trigger.")
@events_option
@server_command
def run(target: Target, slug: str, text: str, payload: str | None, as_json: bool) -> None:
    """Fire the manual trigger and watch the run.

    The exit code is 0 only if it completed.
    """
    body: dict[str, Any] = {"text": text}
    if payload is not None:
        body["payload"] = _parse_payload(payload)
    view = _start(target, f"/workflows/{quote(slug, safe='')}/execute/", body, as_json=as_json)
    _report(view, as_json=as_json)


def _say(
    target: Target, slug: str, text: str, *, as_json: bool, conversation: bool = False
) -> None:
    path = f"/workflows/{quote(slug, safe='')}/chat/"
    view = _start(target, path, {"text": text}, as_json=as_json)
    _report(view, as_json=as_json, stay=conversation)


def _start(target: Target, path: str, body: dict[str, Any], *, as_json: bool) -> View:
    async def action(client: Client) -> View:
        # Listening for Ctrl-C begins before the execution does, so none is ever left behind.
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            started = await client.post(path, body)
            screen = Screen(as_json=as_json)
            return await screen.watch_and_cancel(client, started["execution_id"], signals)

    return call(target, action)


def _report(view: View, *, as_json: bool, stay: bool = False) -> None:
    """Print the reply; leave with exit code 1 when there is none, unless told to *stay*."""
    if view.answer is not None and not as_json:
        click.echo()
        click.echo(view.answer)
    if view.status != "completed" and not stay:
        sys.exit(1)


def _next_message() -> str | None:
    """Return the next message of a conversation, None at its end."""
    if not sys.stdin.isatty():
        return sys.stdin.readline() or None
    try:
        return input("\nyou> ")
    except (EOFError, KeyboardInterrupt):
        click.echo()
        return None


def _parse_payload(text: str) -> dict[str, Any]:
    try:
        payload = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--payload") from None
    if not isinstance(payload, dict):
        raise click.BadParameter("must be a JSON object", param_hint="--payload")
    return payload
