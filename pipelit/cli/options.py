"""What the commands share: the server's address, calling it, and output for people or programs."""

import functools
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click
import msgspec

from pipelit.cli.client import Client, Target
from pipelit.cli.hints import LOG_IN
from pipelit.cli.remember import find_target
from pipelit.cli.running import run_trio

T = TypeVar("T")
P = ParamSpec("P")


def server_command(function: Callable[Concatenate[Target, P], T]) -> Callable[P, T]:
    """Give a command `--url` and `--key` and hand it the server it talks to."""

    @click.option("--url", help="Server to talk to; else PIPELIT_URL, else the last login.")
    @click.option("--key", help="API key; else PIPELIT_API_KEY, else the last login.")
    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> T:
        url, key = kwargs.pop("url"), kwargs.pop("key")
        target = find_target(_text(url), _text(key), os.environ)
        return function(target, *args, **kwargs)

    return command


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
events_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one event per line as JSON."
)


def program_name() -> str:
    """Return what a person types to start this program again."""
    called = sys.argv[0]
    if Path(called).name == "__main__.py":
        return "python -m pipelit"
    return "pipelit" if shutil.which("pipelit") == called else called


def call(target: Target, action: Callable[[Client], Awaitable[T]]) -> T:
    """Run one action against the server of a person who is logged in.

    Raises:
        click.UsageError: no key is known.
    """
    if not target.key:
        raise click.UsageError(
            f"No API key for {target.url}. {LOG_IN}\n"
            "On a new server make the first account with `pipelit setup --username NAME`."
        )
    return call_anonymously(target, action)


def call_anonymously(target: Target, action: Callable[[Client], Awaitable[T]]) -> T:
    """Run one action against the server, with or without a key."""

    async def main() -> T:
        async with Client.open(target) as client:
            return await action(client)

    return run_trio(main)


def echo_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))
