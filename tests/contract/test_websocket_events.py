"""Events over WebSockets: copies, rights, replay, pieces of text. Contract: websocket.md."""

import uuid
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
import trio

from tests.kit.api import Api
from tests.kit.model_server import ModelServer
from tests.kit.site import People, Site, build_echo, build_thinker
from tests.kit.ws_client import WsClient, ws_client

pytestmark = pytest.mark.slow

CHAIN = 30


@pytest.fixture
async def olga(site: Site) -> AsyncIterator[WsClient]:
    """Olga's socket."""
    async with ws_client(site.url, token=site.olga) as client:
        yield client


@pytest.fixture
async def otto(site: Site) -> AsyncIterator[WsClient]:
    """Otto's socket."""
    async with ws_client(site.url, token=site.otto) as client:
        yield client


async def patch(api: Api, workflow: str, **fields: object) -> None:
    assert (await api.call("PATCH", f"/workflows/{workflow}/", fields)).is_success


def seqs(frames: list[Any]) -> list[int]:
    return [frame["seq"] for frame in frames]


async def test_each_event_comes_once_on_each_channel(
    people: People, slug: str, olga: WsClient, provider: ModelServer
) -> None:
    """Equal but for `channel`, in the order of `seq`, and as they are stored."""
    await build_thinker(people.olga, slug, provider)
    await olga.subscribe(f"workflow:{slug}")
    await olga.subscribe(f"workflow:{slug}")
    execution_id = await people.olga.run(slug)
    await olga.subscribe(f"execution:{execution_id}", since=0)
    await (await provider.next_call()).respond(400, {"error": {"message": "no"}})

    heard = [
        *await olga.hear_until("execution_failed"),
        *await olga.hear_until("execution_failed"),
    ]
    frames = [frame for frame in heard if "seq" in frame]  # the canvas may still be told
    stored = await people.olga.events(execution_id)

    copies = {
        channel: [frame for frame in frames if frame["channel"] == channel]
        for channel in (f"execution:{execution_id}", f"workflow:{slug}")
    }
    assert copies[f"execution:{execution_id}"] == stored
    assert copies[f"workflow:{slug}"] == [e | {"channel": f"workflow:{slug}"} for e in stored]
    assert len(frames) == 2 * len(stored)
    assert stored[-1]["type"] == "execution_failed"


async def test_pieces_of_text_add_up_on_the_execution_channel_only(
    people: People, slug: str, olga: WsClient, provider: ModelServer
) -> None:
    """Without `seq`, counted from 0, joined they are the message; nowhere stored."""
    await build_thinker(people.olga, slug, provider)
    await olga.subscribe(f"workflow:{slug}")
    execution_id = await people.olga.run(slug)
    await olga.subscribe(f"execution:{execution_id}", since=0)
    call = await provider.next_call()
    await call.begin()
    for text in ("It ", "left ", "this morning."):
        await call.send_events(
            [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}]
        )
    await call.send_events([{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}])
    await call.send(b"data: [DONE]\n\n")
    await call.end()

    frames = await olga.hear_until("execution_completed")
    frames += await olga.hear_until("execution_completed")

    pieces = [frame for frame in frames if frame["type"] == "chat_delta"]
    assert {frame["channel"] for frame in pieces} == {f"execution:{execution_id}"}
    for index, piece in enumerate(pieces):
        assert set(piece) == {"type", "channel", "timestamp", "execution_id", "data"}
        assert set(piece["data"]) == {"execution_id", "node_id", "text", "index"}
        assert (piece["data"]["node_id"], piece["data"]["index"]) == ("thinker", index)
        assert piece["data"]["text"]
    kinds = [f["type"] for f in frames if f["channel"] == f"execution:{execution_id}"]
    assert kinds.index("chat_message") > kinds.index("chat_delta") + len(pieces) - 1
    (message,) = [e for e in await people.olga.events(execution_id) if e["type"] == "chat_message"]
    assert "".join(piece["data"]["text"] for piece in pieces) == message["data"]["text"]
    assert message["data"] == {
        "execution_id": execution_id,
        "node_id": "thinker",
        "text": "It left this morning.",
    }


async def build_chain(api: Api, slug: str, provider: ModelServer) -> None:
    """Build a long chain of quick nodes with an agent in the middle, which waits for the test."""
    credential = await api.add_model(provider.url)
    names = [f"join_{number}" for number in range(CHAIN)]
    nodes: dict[str, Any] = {name: ("merge", {}) for name in names}
    nodes |= {
        "start": ("trigger_manual", {}),
        "thinker": ("agent", {"system_prompt": "Think."}),
        "model": ("ai_model", {"llm_credential_id": credential, "model_name": "demo-1"}),
    }
    way = ["start", *names[: CHAIN // 2], "thinker", *names[CHAIN // 2 :]]
    edges = [f"{source} -> {target}" for source, target in pairwise(way)]
    await api.build(slug, nodes, ", ".join([*edges, "model -> thinker : llm"]))


async def test_a_replay_joins_the_live_events_without_gap_or_duplicate(
    people: People, slug: str, site: Site, provider: ModelServer
) -> None:
    """Fourteen sockets come at different moments of one run; each sees 1, 2, 3 … to the end."""
    await build_chain(people.olga, slug, provider)
    execution_id = await people.olga.run(slug)
    ends: list[int] = []

    async def watch(since: int, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        async with ws_client(site.url, token=site.olga) as client:
            answer = await client.subscribe(f"execution:{execution_id}", since=since)
            task_status.started()
            frames = await client.hear_until("execution_completed")
            stored = [frame for frame in frames if "seq" in frame]
            first = min(since, answer["last_seq"]) + 1
            assert seqs(stored) == list(range(first, stored[-1]["seq"] + 1))
            assert await client.hear_rest() == []
            ends.append(stored[-1]["seq"])

    async with trio.open_nursery() as nursery:
        for since in (0, 0, 0, 1, 5, 20):
            nursery.start_soon(watch, since)
        call = await provider.next_call()
        for since in (0, 7, 30, 10_000):
            await nursery.start(watch, since)
        nursery.start_soon(call.say, "Go on.")
        for since in (0, 0, 1, 2):
            nursery.start_soon(watch, since)

    assert ends == [2 + 3 * (CHAIN + 1) + 1] * 14


async def test_since_says_how_far_and_starts_again_at_will(
    people: People, slug: str, olga: WsClient
) -> None:
    """The answer has `last_seq`; a frame without `since` changes nothing."""
    await build_echo(people.olga, slug)
    execution_id = await people.olga.run(slug)
    await people.olga.wait_end(execution_id)
    channel = f"execution:{execution_id}"

    async def replay(since: float, *expected: int) -> None:
        answer = await olga.ask(type="subscribe", channel=channel, since=since)
        assert answer == {"type": "subscribed", "channel": channel, "last_seq": 5}
        assert tuple(seqs([await olga.hear() for _ in expected])) == expected

    await replay(0, 1, 2, 3, 4, 5)
    await replay(3, 4, 5)
    await replay(3.0, 4, 5)
    await replay(5)
    await replay(99)
    answer = await olga.ask(type="subscribe", channel=channel)
    assert answer == {"type": "subscribed", "channel": channel}
    await replay(4, 5)
    assert await olga.hear_rest() == []


async def test_since_means_nothing_on_other_channels(
    people: People, slug: str, olga: WsClient
) -> None:
    """The answer has no `last_seq`, and nothing is replayed."""
    await build_echo(people.olga, slug)
    await people.olga.wait_end(await people.olga.run(slug))

    answer = await olga.ask(type="subscribe", channel=f"workflow:{slug}", since=0)

    assert answer == {"type": "subscribed", "channel": f"workflow:{slug}"}
    assert await olga.hear_rest() == []


async def test_what_is_not_visible_looks_like_nothing(
    people: People, slug: str, otto: WsClient
) -> None:
    """Another's execution and workflow: acknowledged, silent."""
    await build_echo(people.olga, slug)
    execution_id = await people.olga.run(slug)
    await people.olga.wait_end(execution_id)

    for name in (execution_id, str(uuid.UUID(int=9))):
        channel = f"execution:{name}"
        answer = await otto.ask(type="subscribe", channel=channel, since=0)
        assert answer == {"type": "subscribed", "channel": channel, "last_seq": 0}
    await otto.subscribe(f"workflow:{slug}")
    await otto.subscribe("system:actors")
    await patch(people.olga, slug, name="New")
    await people.olga.wait_end(await people.olga.run(slug))

    assert await otto.hear_rest() == []


async def test_on_a_public_workflow_everybody_sees_the_canvas_and_their_own_runs(
    people: People, slug: str, olga: WsClient, otto: WsClient
) -> None:
    """Rights are judged at delivery, so the subscription may come first."""
    await otto.subscribe(f"workflow:{slug}")
    await olga.subscribe(f"workflow:{slug}")
    await build_echo(people.olga, slug)
    built = await olga.hear_until("edge_created", source_node_id="start")
    assert await otto.hear_rest() == []
    await patch(people.olga, slug, is_public=True)
    olgas, ottos = await people.olga.run(slug), await people.otto.run(slug)
    for execution_id in (olgas, ottos):
        await people.olga.wait_end(execution_id)
    await patch(people.olga, slug, is_public=False)
    await patch(people.olga, slug, name="Hidden again")

    all_frames = built + await olga.hear_until("workflow_updated", name="Hidden again")
    seen = await otto.hear_rest()

    def runs(frames: list[Any]) -> set[Any]:
        return {frame.get("execution_id") for frame in frames if "seq" in frame}

    assert (runs(all_frames), runs(seen)) == ({olgas, ottos}, {ottos})
    kinds = [frame["type"] for frame in all_frames if "seq" not in frame]
    assert kinds.count("node_created") == 3
    assert kinds.count("edge_created") == 2
    canvas = [frame for frame in seen if "seq" not in frame]
    assert [frame["type"] for frame in canvas] == ["workflow_updated"]
    assert canvas[0]["data"]["is_public"] is True


async def test_a_new_slug_moves_the_events_of_a_running_execution(
    people: People, slug: str, olga: WsClient, provider: ModelServer
) -> None:
    """The old channel announces the change and goes silent."""
    await build_thinker(people.olga, slug, provider)
    await olga.subscribe(f"workflow:{slug}")
    await olga.subscribe(f"workflow:{slug}-2")
    execution_id = await people.olga.run(slug)
    call = await provider.next_call()

    await patch(people.olga, slug, slug=f"{slug}-2")
    await call.say("Done.")
    await people.olga.wait_end(execution_id)
    await patch(people.olga, f"{slug}-2", name="New")
    frames = await olga.hear_until("workflow_updated", name="New")

    old = [frame for frame in frames if frame["channel"] == f"workflow:{slug}"]
    new = [frame for frame in frames if frame["channel"] == f"workflow:{slug}-2"]
    assert old[-1]["type"] == "workflow_updated"
    assert old[-1]["data"]["slug"] == f"{slug}-2"
    assert [frame["seq"] for frame in old[:-1]] == [1, 2, 3]
    assert [frame["seq"] for frame in new if "seq" in frame] == [4, 5, 6]
    assert new[-1]["data"]["name"] == "New"


async def test_the_nodes_of_a_child_are_told_in_the_root(
    people: People, slug: str, olga: WsClient
) -> None:
    """As `child_node_status` with the root's `seq`; on the child's own channel they are its own."""
    nodes = {"in": ("trigger_workflow", {}), "say": ("reply_chat", _message("done"))}
    await people.olga.build(f"{slug}-child", nodes, "in -> say")
    call = ("workflow", {"extra_config": {"target_workflow": f"{slug}-child"}})
    nodes = {"start": ("trigger_manual", {}), "call": call}
    await people.olga.build(slug, nodes, "start -> call")
    await olga.subscribe(f"workflow:{slug}")
    root = await people.olga.run(slug)

    heard = await olga.hear_until("execution_completed")

    assert seqs(heard) == list(range(1, len(heard) + 1))
    told = [frame for frame in heard if frame["type"] == "child_node_status"]
    assert [frame["data"]["status"] for frame in told] == ["pending", "running", "success"]
    (waiting,) = [frame for frame in heard if frame["data"].get("status") == "waiting"]
    (child,) = waiting["data"]["child_execution_ids"]
    its_own = [e["data"] for e in await people.olga.events(child) if e["type"] == "node_status"]
    more = {"child_execution_id": child, "parent_node_id": "call", "is_child_event": True}
    assert [frame["data"] for frame in told] == [
        {**data, **more, "execution_id": root} for data in its_own
    ]
    assert {frame["execution_id"] for frame in told} == {root}


def _message(text: str) -> dict[str, Any]:
    return {"extra_config": {"message": text}}


async def test_unsubscribing_silences_at_once(people: People, slug: str, olga: WsClient) -> None:
    """Also a replay under way; other channels go on."""
    await build_echo(people.olga, slug)
    runs = [await people.olga.run(slug) for _ in range(2)]
    for run in runs:
        await people.olga.wait_end(run)
    await olga.say({"type": "subscribe", "channel": f"execution:{runs[0]}", "since": 0})
    await olga.say({"type": "unsubscribe", "channel": f"execution:{runs[0]}"})
    await olga.say({"type": "subscribe", "channel": f"execution:{runs[1]}", "since": 0})

    frames = await olga.hear_until("execution_completed")
    while frames[-1]["channel"] != f"execution:{runs[1]}":
        frames += await olga.hear_until("execution_completed")

    kinds = [f["type"] for f in frames if f["channel"] == f"execution:{runs[0]}"]
    assert kinds[-1] == "unsubscribed"
    assert seqs([f for f in frames if f["channel"] == f"execution:{runs[1]}"][1:]) == [
        1,
        2,
        3,
        4,
        5,
    ]
