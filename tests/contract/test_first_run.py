"""The contract's first acceptance test: `docs/reference/first-run.md`, played word for word.

A real server process, a real provider on a socket, real WebSockets, and a restart in the end.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.kit.model_server import ModelServer, model_server
from tests.kit.player import LiveSocket, Player, live_socket
from tests.kit.server_process import ServerProcess, free_port
from tests.kit.transcript import EventStream, Exchange, Received, Section, parse

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "first-run.md"
PROVIDER_IN_THE_DOCUMENT = "http://127.0.0.1:9100/v1"
API_KEY = "sk-demo-0123456789abcdef"

pytestmark = pytest.mark.slow


@asynccontextmanager
async def stage(directory: Path) -> AsyncIterator[tuple[ServerProcess, ModelServer]]:
    async with model_server("demo-1") as provider:
        yield ServerProcess(directory, free_port()), provider


def socket_url(server: ServerProcess, player: Player) -> str:
    return f"{server.url.replace('http', 'ws')}/ws/?token={player.matcher.key()}"


@pytest.mark.timeout(240)
async def test_the_first_run_is_as_written(tmp_path: Path) -> None:
    """A client that plays these requests sees these answers, before and after a restart."""
    async with stage(tmp_path) as (server, provider):
        document = DOCUMENT.read_text("utf-8").replace(PROVIDER_IN_THE_DOCUMENT, provider.url)
        sections = parse(document)
        async with httpx2.AsyncClient(base_url=server.url, trust_env=False) as http:
            player = Player(http, provider)
            async with server.run() as process, AsyncExitStack() as sockets:
                await _set_up(player, sections, provider)
                a = await _subscribe(player, sections[6], sockets, socket_url(server, player))
                await _chat(player, sections[7], a)
                await player.play(sections[8].steps)
                b = await sockets.enter_async_context(live_socket(socket_url(server, player)))
                await _replay(player, sections[9], b)
                await player.play(sections[10].steps)
                await _cancel(player, sections[11], a)
                before = await _everything(player, sections)

                exit_code = await server.stop(process)

                assert exit_code == 0, server.tail()
                for socket in (a, b):
                    assert await socket.wait_closed() == (1001, "Server shutting down")
                    socket.require_nothing_left()

            async with server.run() as process:
                assert await _everything(player, sections) == before
                assert await server.stop(process) == 0


async def _set_up(player: Player, sections: dict[int, Section], provider: ModelServer) -> None:
    await player.play(sections[1].steps)
    await player.play(sections[2].steps)
    asked = [(request.method, request.path) for request in provider.requests]
    assert asked == [("GET", "/v1/models")] * 2
    for request in provider.requests:
        assert request.headers["authorization"] == f"Bearer {API_KEY}"
    for number in (3, 4, 5):
        await player.play(sections[number].steps)


async def _subscribe(
    player: Player, section: Section, sockets: AsyncExitStack, url: str
) -> LiveSocket:
    await player.play(section.steps[:1])
    a = await sockets.enter_async_context(live_socket(url))
    player.socket = a
    await player.play(section.steps[1:])
    return a


async def _chat(player: Player, section: Section, a: LiveSocket) -> None:
    await player.play(section.steps)
    (execution_id,) = {call["execution_id"] for call in _chat_answers(player, section)}
    events = player.matcher.copies(execution_id)
    assert [event["seq"] for event in events] == list(range(1, 12))
    for event in events:
        assert await a.receive("workflow:first-run") == event | {"channel": "workflow:first-run"}
    await a.settle()
    a.require_nothing_left()


def _chat_answers(player: Player, section: Section) -> list[dict[str, Any]]:
    exchanges = [step for step in section.steps if isinstance(step, Exchange)]
    return [player.matcher.fill_in(step.answer) for step in exchanges]


async def _replay(player: Player, section: Section, b: LiveSocket) -> None:
    player.socket = b
    await player.play(section.steps)
    (stream,) = (step for step in section.steps if isinstance(step, EventStream))
    seen_all = stream.headers | {"Last-Event-ID": "11"}
    reply = await player.request("GET", stream.path, seen_all, None)
    assert reply.status_code == 204
    await b.settle()
    b.require_nothing_left()


async def _cancel(player: Player, section: Section, a: LiveSocket) -> None:
    player.socket = a
    chat, *rest = section.steps
    started = [step for step in rest[:3] if isinstance(step, Received)]
    cancel, *rest = rest[3:]
    ended = [step for step in rest[:3] if isinstance(step, Received)]
    assert len(started) == len(ended) == 3

    await player.play([chat, *started])
    call = await player.next_call("section 11")
    await player.play([cancel])
    await call.wait_gone()
    await player.play(ended)
    await player.play(rest[3:])

    await a.settle()
    a.require_nothing_left()


async def _everything(player: Player, sections: dict[int, Section]) -> list[Any]:
    """Read all that must survive a restart: executions, history, events."""
    await player.play([step for step in sections[1].steps[:2] if isinstance(step, Exchange)])
    details = [step for n in (8, 11) for step in sections[n].steps if _is_detail(step)]
    lists = [step for step in sections[11].steps[-2:] if isinstance(step, Exchange)]
    await player.play([*details, *lists])
    read = []
    for path in (
        *(step.path for step in details),
        *(step.path + "events/" for step in details),
        *(step.path for step in lists),
        "/api/v1/workflows/first-run/chat/history",
    ):
        reply = await player.request("GET", path, {}, None)
        assert reply.status_code == 200
        read.append(reply.json())
    return read


def _is_detail(step: object) -> bool:
    return (
        isinstance(step, Exchange)
        and step.method == "GET"
        and step.path.startswith("/api/v1/executions/")
        and step.path.endswith("/")
    )
