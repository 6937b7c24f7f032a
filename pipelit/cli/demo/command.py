"""The `demo` command: play the story, or keep the stage open for the reader to play."""

import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import trio

from pipelit.cli import INTERRUPTED
from pipelit.cli.demo.graph import SLUG
from pipelit.cli.demo.server import find_port, running_server
from pipelit.cli.demo.stage import Stage, open_stage
from pipelit.cli.demo.story import play
from pipelit.cli.hints import DEMO_MARKER
from pipelit.cli.options import program_name
from pipelit.cli.running import run_trio

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill`, and a terminal that was closed."""


@click.command()
@click.option("--serve", "keep", is_flag=True, help="Keep the server running and play yourself.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; with --serve 8000, else free.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data here; else it is thrown away at the end.",
)
def demo(keep: bool, port: int | None, data_dir: Path | None) -> None:
    """Watch a run, a cancel and a crash on a real server.

    The model is a script: no account, no network.
    """
    wanted = port if port is not None else 8000 if keep else 0
    if data_dir is not None:
        _refuse_second(data_dir)
    chosen = find_port(wanted)
    if data_dir is not None:
        _claim(data_dir)
    sys.exit(_stage(data_dir, chosen, keep=keep))


def _refuse_second(directory: Path) -> None:
    pid = running_server(directory)
    if pid is not None:
        raise click.ClickException(
            f"The demo's server of {directory} already runs (pid {pid}): "
            f"use it from another terminal, or stop it with `kill {pid}`."
        )


def _claim(directory: Path) -> None:
    """Make or take a directory of the demo.

    Raises:
        click.ClickException: it holds something else.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    marker = directory / DEMO_MARKER
    if not marker.exists() and any(directory.iterdir()):
        raise click.ClickException(
            f"{directory} is not empty and no directory of the demo; choose a new one."
        )
    marker.touch()
    ignore = directory / ".gitignore"
    if not ignore.exists():
        # A directory of the demo inside a repository is no part of it.
        ignore.write_text("*\n")


def _stage(data_dir: Path | None, port: int, *, keep: bool) -> int:
    """Set the stage and play on it; return the exit code."""
    click.echo("Starting the server with a scripted model: no account, no network …", err=True)
    here = Path.cwd()

    async def perform(directory: Path) -> int:
        async with open_stage(here / directory, port) as stage:
            if keep:
                return await _keep(stage, directory)
            await play(stage)
            click.echo(_next_step())
            return 0

    async def main() -> int:
        # No signal leaves a server or a directory behind: in here it cancels, and every step
        # cleans up after itself. More signals meanwhile change nothing.
        code = 0 if keep else INTERRUPTED
        scope = trio.CancelScope()
        with trio.open_signal_receiver(*STOPPING) as signals, _directory(data_dir) as directory:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_stop_at_signal, signals, scope)
                with scope:
                    code = await perform(directory)
                nursery.cancel_scope.cancel("the demo is over")
        return code

    return run_trio(main)


@contextmanager
def _directory(data_dir: Path | None) -> Iterator[Path]:
    """Give the directory to use: the chosen one, else one that is removed with the block."""
    if data_dir is not None:
        yield data_dir
        return
    with tempfile.TemporaryDirectory(prefix="pipelit-demo-") as name:
        yield Path(name)


async def _keep(stage: Stage, directory: Path) -> int:
    """Wait for the server's end and return the exit code."""
    click.echo(_invitation(stage, directory))
    code = await stage.server.wait()
    click.echo(
        f"The server ended (code {code}). Start it again with the same command: "
        "what it was doing goes on.",
        err=True,
    )
    return 1


async def _stop_at_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        if number != signal.SIGHUP and not scope.cancel_called:
            click.echo("Stopping the server …", err=True)
        scope.cancel("stopped by a signal")


def _invitation(stage: Stage, directory: Path) -> str:
    program = program_name()
    return f"""
Pipelit listens on {stage.server.url}; its data is in {directory}, its model is a script.
In another terminal:

    export PIPELIT_DIR={directory}
    {program} chat {SLUG} "What is 12*17?"
    {program} chat {SLUG} "Please hang."        # then press Ctrl-C

Ctrl-C stops the server.
"""


def _next_step() -> str:
    return f"""That was a server of its own, and it is gone. To play yourself:

    {program_name()} demo --serve --data-dir .demo"""
