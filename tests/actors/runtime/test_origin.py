"""Lines of a log can be followed from a request through every actor that worked for it."""

from pipelit.actors.runtime import get_log_context, get_origin, origin
from pipelit.actors.runtime.testing import Kit
from tests.actors.runtime.puppet import Do, Puppet


async def test_a_message_carries_its_origin_from_actor_to_actor(kit: Kit) -> None:
    """Also through an own task, and a message the actor posts to itself."""
    seen: list[object] = []

    async def note(actor: Puppet) -> None:
        seen.append(get_origin())

    async def tell_on(actor: Puppet) -> None:
        second.tell(Do(note))

    async def hand_on(actor: Puppet) -> None:
        async def own_task() -> None:
            actor.ctx.post(Do(tell_on))

        actor.ctx.start_soon(own_task)

    first, second = kit.spawn(Puppet), kit.spawn(Puppet)
    with origin(request_id="r1"):
        first.tell(Do(hand_on))
    await kit.settle()

    assert seen == [{"request_id": "r1"}]
    assert get_origin() == {}


async def test_the_next_message_has_its_own_origin(kit: Kit) -> None:
    """Nothing of the turn before is left."""
    seen: list[object] = []

    async def note(actor: Puppet) -> None:
        seen.append(get_log_context().get("request_id"))

    ref = kit.spawn(Puppet)
    with origin(request_id="r1"):
        ref.tell(Do(note))
    ref.tell(Do(note))
    await kit.settle()

    assert seen == ["r1", None]
