"""Promises 5 and 12: a restart keeps the mail; limits, windows and pauses are exact."""

import itertools
from random import Random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pipelit.actors.runtime import (
    ActorDied,
    Backoff,
    ChildSpec,
    Directive,
    OnLimit,
    Restart,
    RestartLimit,
    SupervisorSpec,
)
from pipelit.actors.runtime.restart import Window, judge
from pipelit.actors.runtime.testing import Kit, open_kit
from tests.actors.runtime.puppet import (
    BoomError,
    Do,
    Explode,
    Note,
    Ping,
    Puppet,
    examples,
    puppet,
    run,
)

pytestmark = pytest.mark.timeout(60)

MANY = RestartLimit(10_000, within=60)


@examples(80)
@given(
    st.lists(st.one_of(st.integers(0, 9), st.just("crash"), st.just("own"), st.just("pause"))),
    st.random_module(),
)
def test_a_restart_keeps_the_mail_in_order_minus_what_crashed(
    script: list[int | str], interleaving: object
) -> None:
    """Promise 5 (P): the journal is exactly what was sent, without the crashing messages."""
    journal: list[str] = []
    expected = [str(item) for item in script if isinstance(item, int)]

    async def main() -> None:
        async with open_kit() as kit:
            ref = kit.spawn(
                puppet(journal),
                restart=Restart.TRANSIENT,
                limit=MANY,
                backoff=Backoff(first=0.2, cap=1.0),
            )
            for item in script:
                match item:
                    case int():
                        ref.tell(Note(str(item)))
                    case "crash":
                        ref.tell(Explode())
                    case "own":
                        await ref.ask(Ping(), timeout=1000)  # now no message is in hand
                        kit.crash_in_own_task(ref, BoomError("own task"))
                        await kit.settle()
                    case _:
                        await trio.sleep(0.15)
            await ref.ask(Ping(), timeout=1000)
        assert journal == expected

    run(main)


async def test_what_an_incarnation_set_going_ends_with_it(kit: Kit) -> None:
    """Promise 5 (U): own posts, timers and own tasks do not reach the next incarnation."""
    journal: list[str] = []
    ref = kit.spawn(puppet(journal), restart=Restart.TRANSIENT)

    async def set_going(puppet: Puppet) -> None:
        puppet.ctx.post(Note("post"))
        puppet.ctx.after(3, Note("timer"))
        puppet.ctx.start_soon(trio.sleep, 1)
        raise BoomError

    ref.tell(Do(set_going))
    await trio.sleep(10)

    assert await ref.ask(Ping()) == 1
    assert journal == []


async def test_policies_decide_who_comes_back(kit: Kit) -> None:
    """Permanent always, transient after a crash, temporary never."""

    async def end(puppet: Puppet) -> None:
        puppet.ctx.stop()

    outcomes = {}
    for restart, message in itertools.product(Restart, (Explode(), Do(end))):
        ref = kit.spawn(Puppet, restart=restart)
        ref.tell(message)
        await trio.sleep(1)
        outcomes[restart.value, type(message).__name__] = kit.events(ref)

    again = "actor_restarted"
    assert outcomes == {
        ("permanent", "Explode"): ["actor_started", "actor_crashed", again],
        ("permanent", "Do"): ["actor_started", again],
        ("transient", "Explode"): ["actor_started", "actor_crashed", again],
        ("transient", "Do"): ["actor_started", "actor_stopped"],
        ("temporary", "Explode"): ["actor_started", "actor_crashed"],
        ("temporary", "Do"): ["actor_started", "actor_stopped"],
    }


@given(
    st.lists(st.integers(0, 50), max_size=40),
    st.integers(0, 5),
    st.integers(1, 30),
    st.sampled_from(OnLimit),
)
def test_limit_and_window_are_exact(
    gaps: list[int], restarts: int, within: int, then: OnLimit
) -> None:
    """Promise 12 (P): one more than `restarts` within `within` seconds gives up; no less does."""
    window = Window(RestartLimit(restarts, within, then))
    times = list(itertools.accumulate(gaps))

    for index, now in enumerate(times):
        verdict = judge(Directive.RESTART, Restart.PERMANENT, window, now)

        in_window = sum(1 for earlier in times[: index + 1] if now - earlier <= within)
        assert verdict.in_window == in_window
        assert verdict.gave_up == (in_window > restarts)
        if in_window <= restarts:
            assert verdict.next is Directive.RESTART
        elif then is OnLimit.ESCALATE:
            assert verdict.next is Directive.ESCALATE
        else:
            assert verdict.next is Directive.STOP


@pytest.mark.parametrize(
    ("directive", "restart", "expected"),
    [
        (Directive.ESCALATE, Restart.TEMPORARY, Directive.ESCALATE),
        (Directive.ESCALATE, Restart.PERMANENT, Directive.ESCALATE),
        (Directive.STOP, Restart.PERMANENT, Directive.STOP),
        (Directive.RESTART, Restart.TEMPORARY, Directive.STOP),
        (Directive.RESTART, Restart.TRANSIENT, Directive.RESTART),
    ],
)
def test_a_directive_and_a_policy_make_a_verdict(
    directive: Directive, restart: Restart, expected: Directive
) -> None:
    """Promise 12 (U): the table of what follows a crash."""
    verdict = judge(directive, restart, Window(RestartLimit()), 0.0)

    assert verdict.next is expected


_BACKOFFS = st.builds(
    Backoff,
    first=st.floats(0, 5),
    factor=st.floats(1, 4),
    cap=st.floats(5, 60),
    jitter=st.floats(0, 0.5),
)


@given(_BACKOFFS, st.integers(1, 10_000), st.integers())
def test_backoff_is_within_bounds(backoff: Backoff, failures: int, seed: int) -> None:
    """Promise 12 (P): the pause is `min(cap, first * factor ** (n - 1))`, give or take jitter."""
    try:
        ideal = min(backoff.cap, backoff.first * backoff.factor ** (failures - 1))
    except OverflowError:
        ideal = backoff.cap if backoff.first else 0.0

    delay = backoff.delay(failures, Random(seed))

    slack = 1e-9 + 1e-9 * failures
    assert ideal * (1 - backoff.jitter) * (1 - slack) - slack <= delay
    assert delay <= ideal * (1 + backoff.jitter) * (1 + slack) + slack


@given(_BACKOFFS)
def test_backoff_grows_until_its_cap(backoff: Backoff) -> None:
    """Promise 12 (P): without jitter the pauses never get shorter and never exceed the cap."""
    still = Backoff(backoff.first, backoff.factor, backoff.cap, jitter=0.0)

    delays = [still.delay(n, Random(0)) for n in range(1, 40)]

    assert delays == sorted(delays)
    assert delays[0] == still.first
    assert max(delays) <= still.cap


@pytest.mark.parametrize(
    "make",
    [
        lambda: Backoff(first=-1),
        lambda: Backoff(first=2, cap=1),
        lambda: Backoff(factor=0.5),
        lambda: Backoff(jitter=1),
        lambda: RestartLimit(-1),
        lambda: RestartLimit(1, within=0),
    ],
)
def test_nonsense_is_refused_where_it_is_written_down(make: type[Backoff]) -> None:
    """A limit or a backoff that means nothing is an error at construction."""
    with pytest.raises(ValueError, match="not a"):
        make()


async def test_pauses_grow_and_start_over_after_a_healthy_time(kit: Kit) -> None:
    """Promise 12 (U): failures in a row double the pause; `reset_after` ends the row."""
    backoff = Backoff(first=1, factor=2, cap=3, jitter=0, reset_after=100)
    ref = kit.spawn(Puppet, restart=Restart.TRANSIENT, backoff=backoff, limit=MANY)

    for healthy in (0, 0, 0, 99, 100):
        await trio.sleep(healthy)
        ref.tell(Explode())
        await ref.ask(Ping(), timeout=10)

    pauses = [record.detail["backoff_ms"] for record in kit.records(ref, "actor_restarted")]
    assert pauses == [1000, 2000, 3000, 3000, 1000]


async def test_a_dynamic_child_that_gives_up_harms_nobody(kit: Kit) -> None:
    """Promise 12 (U): children that came at run time have their own window and are stopped."""
    ref = kit.spawn(Puppet, restart=Restart.PERMANENT)
    other = kit.spawn(Puppet, restart=Restart.PERMANENT)

    for _ in range(3):
        ref.tell(Explode())
        other.tell(Explode())
        await trio.sleep(2)
    ref.tell(Explode())
    with pytest.raises(ActorDied):
        await ref.ask(Ping(), timeout=60)

    assert kit.events(ref)[-2:] == ["actor_crashed", "actor_gave_up"]
    (gave_up,) = kit.records(ref, "actor_gave_up")
    assert gave_up.detail == {"max_restarts": 3, "window_s": 60.0}
    assert await other.ask(Ping()) == 1
    restarted = kit.records(other, "actor_restarted")
    assert [record.detail["restarts_in_window"] for record in restarted] == [1, 2, 3]


async def test_static_children_share_a_window_and_their_supervisor_comes_back(kit: Kit) -> None:
    """Promise 12 (U): limits multiply up the tree; a supervisor that failed starts afresh."""

    def child(name: str) -> ChildSpec[Ping]:
        return ChildSpec(id=name, kind="test", start=Puppet)

    kit.system.start_child(
        "/",
        SupervisorSpec(
            id="group", limit=RestartLimit(1, within=60), children=(child("a"), child("b"))
        ),
    )
    group = kit.system.ref("/group")
    await kit.wait_for("actor_started", group)
    kit.system.ref("/group/a").tell(Explode())
    await trio.sleep(1)
    kit.system.ref("/group/b").tell(Explode())
    await kit.wait_for("actor_restarted", group)

    assert await kit.system.ref("/group/a").ask(Ping()) == 1
    assert [r.event for r in kit.system.records(actor="/group")][3:] == [
        "actor_crashed",  # a
        "actor_restarted",  # a
        "actor_crashed",  # b: one too many
        "actor_gave_up",  # b
        "supervisor_escalated",
        "actor_stopped",  # a
        "actor_crashed",  # the group
        "actor_started",  # a
        "actor_started",  # b
        "actor_restarted",  # the group
    ]
    (escalated,) = kit.system.records(event="supervisor_escalated")
    assert escalated.actor == "/group"
    assert escalated.detail == {"child": "/group/b"}
    (crash,) = kit.records(group, "actor_crashed")
    assert crash.reason == "escalated"
    assert crash.error is not None
    assert "BoomError: boom" in crash.error.traceback


async def test_a_permanent_actor_that_keeps_ending_gives_up_too(kit: Kit) -> None:
    """Promise 12 (U): ending by itself counts against the limit of a permanent actor."""

    class Quitter(Puppet):
        async def on_start(self) -> None:
            self.ctx.stop()

    ref = kit.spawn(
        Quitter, restart=Restart.PERMANENT, limit=RestartLimit(2, then=OnLimit.STOP_CHILD)
    )
    ended = await ref.wait_stopped()

    assert ended.reason == "normal"
    assert kit.events(ref) == [
        "actor_started",
        "actor_restarted",
        "actor_restarted",
        "actor_gave_up",
    ]
