"""The three acts of `pipelit demo`: a run node by node, a cancel, a crash that loses nothing."""

from collections.abc import AsyncIterator

import click
import trio

from pipelit.cli.demo.graph import SLUG
from pipelit.cli.demo.stage import Stage
from pipelit.cli.render import View
from pipelit.cli.screen import Screen

HANG_SECONDS = 1.5
KILL_SECONDS = 1.5


async def play(stage: Stage) -> None:
    """Play all acts.

    Raises:
        click.ClickException: an act did not end as it should.
    """
    screen = Screen()
    _title("1. A chat message runs through a workflow, node by node")
    _check(await _chat(stage, screen, "What is 12*17?", _never()), "completed")

    _title("2. A run that hangs is cancelled, and really stops")
    _check(await _chat(stage, screen, "Please hang.", _ctrl_c(screen)), "cancelled")

    _title("3. The server is killed in the middle of a run; nothing is lost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_crash_and_restart, stage, screen)
        view = await _chat(stage, screen, "Slowly, please: what is 3*4?", _never())
    _check(view, "completed")
    click.echo()


async def _chat(stage: Stage, screen: Screen, text: str, signals: AsyncIterator[int]) -> View:
    screen.say(f'$ pipelit chat {SLUG} "{text}"')
    answer = await stage.client.post(f"/workflows/{SLUG}/chat/", {"text": text})
    return await screen.watch_and_cancel(stage.client, answer["execution_id"], signals)


def _check(view: View, expected: str) -> None:
    if view.answer is not None:
        click.echo()
        click.echo(view.answer)
    if view.status != expected:
        raise click.ClickException(f"The run is {view.status}; it should be {expected}.")


async def _crash_and_restart(stage: Stage, screen: Screen) -> None:
    await trio.sleep(KILL_SECONDS)
    screen.say(f"$ kill -9 {stage.server.pid}")
    await stage.server.kill()
    screen.say("$ pipelit serve")
    await stage.server.start(stage.client)


async def _ctrl_c(screen: Screen) -> AsyncIterator[int]:
    await trio.sleep(HANG_SECONDS)
    screen.say("^C")
    yield 2


async def _never() -> AsyncIterator[int]:
    await trio.sleep_forever()
    yield 0


def _title(text: str) -> None:
    click.echo()
    click.secho(text, bold=True)
    click.echo()
