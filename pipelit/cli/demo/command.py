"""The `demo` command: play the story, or keep the stage open for the reader to play."""

import signal
import sys
import tempfile
from pathlib import Path

import click
import trio

from pipelit.cli.demo.graph import SLUG
from pipelit.cli.demo.server import find_port
from pipelit.cli.demo.stage import Stage, open_stage
from pipelit.cli.demo.story import play
from pipelit.cli.events import run_trio
from pipelit.cli.options import program_name


@click.command()
@click.option("--serve", "keep", is_flag=True, help="Keep the server running and play yourself.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; with --serve 8000, else free.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data here; else it is thrown away at the end.",
)
def demo(keep: bool, port: int | None, data_dir: Path | None) -> None:
    """Watch a run, a cancel and a crash: real server, scripted model, no account, no network."""
    chosen = find_port(port if port is not None else 8000 if keep else 0)
    if data_dir is not None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A directory of the demo inside a repository is no part of it.
        (data_dir / ".gitignore").write_text("*\n")
        sys.exit(_stage(data_dir, chosen, keep=keep))
    with tempfile.TemporaryDirectory(prefix="pipelit-demo-") as name:
        code = _stage(Path(name), chosen, keep=keep)
    sys.exit(code)


def _stage(directory: Path, port: int, *, keep: bool) -> int:
    """Set the stage and play on it; return the exit code."""
    click.echo("Starting the server with a scripted model: no account, no network …", err=True)
    absolute = directory.absolute()

    async def main() -> int:
        async with open_stage(absolute, port) as stage:
            if keep:
                return await _keep(stage, directory)
            await play(stage)
            return 0

    try:
        return run_trio(main)
    except KeyboardInterrupt:
        return 1


async def _keep(stage: Stage, directory: Path) -> int:
    """Wait for the server's end or for Ctrl-C; return the exit code."""
    click.echo(_invitation(stage, directory))
    code: int | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_at_signal, nursery.cancel_scope)
        code = await stage.server.wait()
        nursery.cancel_scope.cancel("the server ended")
    if code is None:
        return 0
    click.echo(
        f"The server ended (code {code}). Start it again with the same command: "
        "what it was doing goes on.",
        err=True,
    )
    return 1


async def _stop_at_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            click.echo("Stopping the server …", err=True)
            scope.cancel("stopped by a signal")
            return


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
