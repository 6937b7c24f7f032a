"""identify_user: who is recognised, and what the nodes after it are told."""

from datetime import UTC, datetime

import pytest
import trio

from pipelit.nodes.identify_user import (
    Known,
    Met,
    detect_channel,
    identify,
    identify_user_component,
)
from pipelit.nodes.memory import Fact, MemoryFailed
from tests.nodes.calls import call

DAY = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MET = Met(
    user_id="u-1",
    is_new=False,
    display_name="Ann",
    preferences={"tone": "dry"},
    total_conversations=3,
    first_seen=DAY,
    facts=(Fact(key="city", value="Bern", fact_type="user_preference"),),
    history=(Known("asked about Bern", success=True, when=DAY),),
)
CONTEXT = {
    "user_id": "u-1",
    "is_new": False,
    "display_name": "Ann",
    "preferences": {"tone": "dry"},
    "facts": [{"key": "city", "value": "Bern", "type": "user_preference"}],
    "history": [{"summary": "asked about Bern", "success": True, "when": "2026-01-02T03:04:05"}],
    "total_conversations": 3,
    "first_seen": "2026-01-02T03:04:05",
}


class People:
    """A memory that knows one person."""

    def __init__(self, answer):
        self.answer = answer
        self.met = []

    async def meet(self, encounter):
        await trio.lowlevel.checkpoint()
        self.met.append(encounter)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def run(people, **given):
    return await identify_user_component(people)(call(**given))


@pytest.mark.parametrize(
    ("data", "channel"),
    [
        ({"source": "gateway"}, "gateway"),
        ({"gw_user_id": "9"}, "gateway"),
        ({"payload": {"gateway_user": "x"}}, "gateway"),
        ({"webhook_id": "w", "source": "webhook"}, "webhook"),
        ({"source": "chat"}, "chat"),
        ({"source": "manual"}, "manual"),
        ({"source": "schedule"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_the_channel_is_told_by_what_a_trigger_carries(data, channel):
    """Gateway before webhook before the source."""
    assert detect_channel(data) == channel


@pytest.mark.parametrize(
    ("channel", "data", "canonical", "name"),
    [
        ("gateway", {"user": {"id": 9, "first_name": "Ann"}}, "gw:9", "Ann"),
        ("gateway", {"user_id": "9", "user_name": "ann"}, "gw:9", "ann"),
        ("gateway", {"payload": {"gw_user_id": "9"}}, "gw:9", None),
        ("gateway", {"user_id": "1", "payload": {"user": {"id": "2"}}}, "gw:1", None),
        (
            "webhook",
            {"payload": {"email": "a@b.example", "name": "Ann"}},
            "webhook:a@b.example",
            "Ann",
        ),
        ("webhook", {}, "webhook:anonymous", None),
        ("chat", {"user_id": 3, "user_name": "ada"}, "chat:3", "ada"),
        ("manual", {}, "manual:manual_user", "Manual User"),
        ("unknown", {"user_name": "x"}, "unknown:unknown", "x"),
        ("slack", {"user_id": "U1"}, "slack:U1", None),
    ],
)
def test_each_channel_names_people_in_its_own_way(channel, data, canonical, name):
    """Top-level keys first, then the payload."""
    identity = identify(channel, data)

    assert (identity.canonical_id, identity.display_name) == (canonical, name)


async def test_what_is_known_becomes_ports_and_user_context():
    """The context of the run gets more than the port: canonical id and channel."""
    people = People(MET)

    outcome = await run(
        people, outputs={"t": {"source": "chat", "user_id": 3, "user_name": "ada"}}, trigger="t"
    )

    assert outcome.ports == {"user_id": "u-1", "user_context": CONTEXT, "is_new_user": False}
    assert outcome.state_patch == {
        "user_context": {
            **CONTEXT,
            "is_new_user": False,
            "canonical_id": "chat:3",
            "channel": "chat",
        }
    }
    (encounter,) = people.met
    assert (encounter.canonical_id, encounter.display_name) == ("chat:3", "ada")
    assert encounter.workflow_id == 1


async def test_config_and_predecessors_say_more_than_the_trigger():
    """`channel` of the config, then of a predecessor; `trigger_input` instead of the trigger."""
    outputs = {
        "t": {"source": "chat", "user_id": 3},
        "up": {"channel": "gateway", "trigger_input": {"user_id": 7}},
    }
    people = People(MET)

    await run(people, outputs=outputs, trigger="t", predecessors=("up",))
    await run(people, outputs=outputs, trigger="t", predecessors=("up",), channel="webhook")

    assert [e.canonical_id for e in people.met] == ["gw:7", "webhook:7"]


async def test_a_memory_out_of_reach_does_not_fail_the_node():
    """Everybody is new then; the warning says why."""
    outcome = await run(
        People(MemoryFailed("Storage is not available.")),
        outputs={"t": {"source": "chat", "user_id": 3, "user_name": "ada"}},
        trigger="t",
    )

    context = {"is_new": True, "facts": [], "history": []}
    assert outcome.ports == {"user_id": None, "user_context": context, "is_new_user": True}
    assert outcome.state_patch["user_context"]["display_name"] == "ada"
    assert outcome.report.warnings == (
        {"code": "memory_unavailable", "message": "Storage is not available."},
    )
