"""Attacks over the WebSocket. Contract: websocket.md."""

import json

import pytest
import trio

from tests.kit.api import Api
from tests.kit.site import People, Site, build_echo
from tests.kit.ws_client import ws_client
from tests.security.bystander import undisturbed

pytestmark = pytest.mark.slow

FRAMES = {
    "no_json": "{",
    "a_list": "[]",
    "a_number": "1",
    "deep_lists": "[" * 60_000,
    "deep_objects": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "a_huge_number": '{"type": "subscribe", "channel": "execution:1", "since": ' + "9" * 5000 + "}",
    "a_negative_since": '{"type": "subscribe", "channel": "execution:1", "since": -1}',
    "a_long_channel": json.dumps({"type": "subscribe", "channel": "x" * 301}),
    "an_object_as_channel": '{"type": "subscribe", "channel": {}}',
    "an_unknown_type": '{"type": "cancel", "execution_id": "x"}',
    "an_event": '{"type": "execution_completed", "channel": "workflow:x", "data": {}}',
    "a_prototype": '{"__proto__": {"type": "subscribe"}, "channel": "x"}',
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=list(FRAMES))
async def test_a_frame_that_makes_no_sense_does_nothing(
    site: Site, bystander: Api, frame: str
) -> None:
    """It is passed over, and the socket goes on."""
    async with undisturbed(bystander), ws_client(site.url, token=site.olga) as socket:
        await socket.say(frame)
        assert await socket.hear_rest() == []


async def test_a_flood_of_subscriptions_closes_the_socket(site: Site, bystander: Api) -> None:
    """At the 201st channel."""
    async with undisturbed(bystander), ws_client(site.url, token=site.olga) as socket:
        for number in range(201):
            await socket.say({"type": "subscribe", "channel": f"workflow:{number}"})
        assert await socket.hear_close() == (1008, "Too many subscriptions")


async def test_a_flood_of_frames_slows_only_its_sender(site: Site, bystander: Api) -> None:
    """Frames are read as fast as they are handled."""
    frame = {"type": "subscribe", "channel": "workflow:x", "since": 0}
    async with undisturbed(bystander) as rounds, ws_client(site.url, token=site.olga) as socket:
        for _ in range(2000):
            await socket.say(frame)
        await rounds.more(1)


async def test_a_reader_that_does_not_read_slows_nobody(
    people: People, site: Site, bystander: Api, slug: str
) -> None:
    """What waits for it is bounded; others get theirs."""
    await build_echo(people.olga, slug)
    async with (
        ws_client(site.url, token=site.olga, receive_buffer=4096) as deaf,
        undisturbed(bystander),
    ):
        await deaf.subscribe(f"workflow:{slug}")
        for _ in range(10):
            run = await people.olga.run(slug, text="x" * 20_000)
            await people.olga.wait_end(run)


async def test_nobody_hears_the_runs_of_others(people: People, site: Site, slug: str) -> None:
    """Not by the workflow, not by the execution, not by a replay; a guess reveals nothing."""
    await build_echo(people.olga, slug)
    async with ws_client(site.url, token=site.otto) as socket:
        await socket.subscribe(f"workflow:{slug}")
        run = await people.olga.run(slug)
        replay = await socket.subscribe(f"execution:{run}", since=0)
        unknown = await socket.subscribe("execution:no-such", since=0)
        await people.olga.wait_end(run)
        await people.olga.call("PATCH", f"/workflows/{slug}/", {"name": "renamed"})

        assert await socket.hear_rest() == []
        assert replay["last_seq"] == unknown["last_seq"] == 0


async def test_rights_are_those_of_the_moment(people: People, site: Site, slug: str) -> None:
    """What was public when it was subscribed to is not heard any more."""
    await build_echo(people.olga, slug, is_public=True)
    async with ws_client(site.url, token=site.otto) as socket:
        await socket.subscribe(f"workflow:{slug}")
        await people.olga.call("PATCH", f"/workflows/{slug}/", {"name": "public"})
        await socket.hear_until("workflow_updated")

        await people.olga.call("PATCH", f"/workflows/{slug}/", {"is_public": False})
        await people.olga.call("PATCH", f"/workflows/{slug}/", {"name": "private"})
        await people.olga.wait_end(await people.olga.run(slug))

        heard = await socket.hear_rest()
        assert "private" not in json.dumps(heard)
        assert "execution" not in json.dumps([event["type"] for event in heard])


async def test_nobody_but_an_admin_hears_of_the_system(people: People, site: Site) -> None:
    """The channel is answered and stays silent."""
    async with ws_client(site.url, token=site.otto) as socket:
        await socket.subscribe("system:actors")
        async with ws_client(site.url, token=site.ada) as other:
            await other.subscribe("system:actors")
        assert await socket.hear_rest() == []


@pytest.mark.parametrize("way", ["the_key", "the_user"])
async def test_a_stolen_key_that_is_revoked_closes_its_sockets(
    people: People, site: Site, slug: str, way: str
) -> None:
    """At once, and it opens no other."""
    name = f"{slug[-60:]}-{way}"
    user = await people.ada.post("/users/", {"username": name, "password": "correct horse battery"})
    made = await people.ada.post(f"/users/{user['id']}/keys", {"name": "stolen"})
    path = {"the_key": f"/users/{user['id']}/keys/{made['id']}", "the_user": f"/users/{user['id']}"}
    async with ws_client(site.url, token=made["key"]) as socket:
        await socket.subscribe("workflow:x")

        await people.ada.call("DELETE", path[way])

        with trio.fail_after(5):
            assert await socket.hear_close() == (1008, "Invalid or missing token")
    async with ws_client(site.url, token=made["key"]) as again:
        assert await again.hear_close() == (1008, "Invalid or missing token")


@pytest.mark.parametrize("token", ["", "x", "x" * 5000, "olga-s-key%00", "%FF", "olga-s-key%20"])
async def test_a_key_that_is_none_opens_no_socket(site: Site, token: str) -> None:
    """All look the same."""
    async with ws_client(site.url, token=token) as socket:
        assert await socket.hear_close() == (1008, "Invalid or missing token")
