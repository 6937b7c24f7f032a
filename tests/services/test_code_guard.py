"""What the second factor remembers, and forgets. Contract: auth.md, MFA: Rate, Lockout, State."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.errors import TooMany
from pipelit.services.code_guard import LOCKED, TOO_MANY, CodeGuard
from pipelit.services.permits import Permits
from tests.kit.hand_clock import HandClock

START = HandClock().now()


def test_a_refused_check_is_not_counted() -> None:
    """Whoever keeps asking waits no longer than whoever does not."""
    guard = CodeGuard()
    for second in range(5):
        guard.admit(1, START + timedelta(seconds=second))
    for second in range(5, 60):
        with pytest.raises(TooMany, match=TOO_MANY):
            guard.admit(1, START + timedelta(seconds=second))

    guard.admit(1, START + timedelta(seconds=60))


def test_a_lockout_is_told_before_the_rate() -> None:
    """Both may hold; the longer wait is the one to know."""
    guard = CodeGuard()
    for number in range(10):
        guard.admit(1, START + timedelta(seconds=12 * number))
        guard.settle(1, START + timedelta(seconds=12 * number), right=False)

    with pytest.raises(TooMany, match=LOCKED) as refusal:
        guard.admit(1, START + timedelta(seconds=109))

    assert refusal.value.retry_after == 899


def test_retry_after_is_rounded_up() -> None:
    """A client that waits that long gets through."""
    guard = CodeGuard()
    for _ in range(5):
        guard.admit(1, START)

    with pytest.raises(TooMany) as refusal:
        guard.admit(1, START + timedelta(seconds=59.5))

    assert refusal.value.retry_after == 1


def test_who_was_not_checked_for_a_lockouts_length_is_forgotten() -> None:
    """Memory holds nobody longer than it matters."""
    guard = CodeGuard()
    for user_id in range(100):
        guard.admit(user_id, START)
        guard.settle(user_id, START, right=False)

    guard.admit(100, START + timedelta(seconds=899))
    assert len(guard._records) == 101
    guard.admit(100, START + timedelta(seconds=900))
    assert list(guard._records) == [100]


@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=60))
def test_the_guard_is_what_the_contract_says(tries: list[tuple[int, bool]]) -> None:
    """Whatever is tried when: as a plain reading of the two rules would have it."""
    guard = CodeGuard()
    now = START
    checked, wrong = [], []
    for seconds, right in tries:
        now += timedelta(seconds=seconds)
        if wrong and now - wrong[-1] >= timedelta(seconds=900):
            wrong = []
        expected = None
        if len(wrong) == 10:
            expected = LOCKED
        elif sum(now - then < timedelta(seconds=60) for then in checked) >= 5:
            expected = TOO_MANY
        if expected is not None:
            with pytest.raises(TooMany, match=expected):
                guard.admit(1, now)
            continue
        guard.admit(1, now)
        guard.settle(1, now, right=right)
        checked.append(now)
        wrong = [] if right else [*wrong, now]


def test_a_permit_is_for_one_password_and_300_seconds() -> None:
    """And is gone when taken."""
    permits = Permits()
    permits.give(1, "hash", START)

    assert permits.holds(1, "hash", START + timedelta(seconds=299))
    assert not permits.holds(1, "hash", START + timedelta(seconds=300))
    assert not permits.holds(1, "other", START)
    assert not permits.holds(1, None, START)
    assert not permits.holds(2, "hash", START)
    permits.take(1)
    assert not permits.holds(1, "hash", START)
    permits.take(1)


def test_a_permit_given_again_lasts_anew() -> None:
    """From the newer password step on."""
    permits = Permits()
    permits.give(1, "hash", START)
    permits.give(2, "hash", START + timedelta(seconds=100))
    permits.give(1, "hash", START + timedelta(seconds=200))
    permits.give(3, "hash", START + timedelta(seconds=450))

    assert permits.holds(1, "hash", START + timedelta(seconds=499))
    assert list(permits._given) == [1, 3]
