"""The three acts of `pipelit demo`: a run node by node, a cancel, a crash that loses nothing."""

from collections.abc import AsyncIterator, Awaitable, Callable

import click
import trio

from pipelit.cli.demo.graph import SLUG
from pipelit.cli.demo.stage import Stage
from pipelit.cli.render import View
from pipelit.cli.screen import stream_run

HANG_SECONDS = 1.5
KILL_SECONDS = 1.5


async def play(stage: Stage) -> None:
    """Play all acts.

    Raises:
        click.ClickException: an act did not end as it should.
    """
    _title("1. A chat message runs through a workflow, node by node")
    await _chat(stage, "What is 12*17?", expected="completed")

    _title("2. A run that hangs is cancelled, and really stops")
    await _chat(stage, "Please hang.", expected="cancelled", cancel_on=_ctrl_c())

    _title("3. The server is killed in the middle of a run; nothing is lost")
    crash = _crash_and_restart
    await _chat(stage, "Slowly, please: what is 3*4?", expected="completed", meanwhile=crash)
    click.echo()


async def _chat(
    stage: Stage,
    text: str,
    *,
    expected: str,
    cancel_on: AsyncIterator[int] | None = None,
    meanwhile: Callable[[Stage], Awaitable[None]] | None = None,
) -> None:
    click.echo(f'$ pipelit chat {SLUG} "{text}"')
    answer = await stage.client.post(f"/workflows/{SLUG}/chat/", {"text": text})
    async with trio.open_nursery() as nursery:
        if meanwhile is not None:
            nursery.start_soon(meanwhile, stage)
        signals = cancel_on or _never()
        view = await stream_run(stage.client, answer["execution_id"], cancel_on=signals)
    _check(view, expected)


def _check(view: View, expected: str) -> None:
    if view.answer is not None:
        click.echo()
        click.echo(view.answer)
    if view.status != expected:
        raise click.ClickException(f"The run is {view.status}; it should be {expected}.")


async def _crash_and_restart(stage: Stage) -> None:
    await trio.sleep(KILL_SECONDS)
    click.echo(f"$ kill -9 {stage.server.pid}")
    await stage.server.kill()
    click.echo("$ pipelit serve")
    await stage.server.start(stage.client)


async def _ctrl_c() -> AsyncIterator[int]:
    await trio.sleep(HANG_SECONDS)
    click.echo("^C")
    yield 2


async def _never() -> AsyncIterator[int]:
    await trio.sleep_forever()
    yield 0


def _title(text: str) -> None:
    click.echo()
    click.secho(text, bold=True)
    click.echo()
