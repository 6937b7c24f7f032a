"""Who failed too often waits; nobody else does. Contract: auth.md, Login throttle."""

from hypothesis import given
from hypothesis import strategies as st

from pipelit.services.throttle import Throttle

HERE, THERE = ("10.0.0.1", "ada"), ("10.0.0.2", "ada")


def test_more_than_ten_failures_in_a_minute_make_wait() -> None:
    """The eleventh failure closes the door until the first of them is a minute old."""
    throttle = Throttle()

    for second in range(10):
        throttle.fail(HERE, second)
    assert throttle.wait(HERE, 10.0) == 0
    throttle.fail(HERE, 10.0)

    assert throttle.wait(HERE, 10.0) == 50
    assert throttle.wait(HERE, 59.5) == 0.5
    assert throttle.wait(HERE, 60.0) == 0


def test_another_address_is_not_affected() -> None:
    """Nobody can lock the owner out from elsewhere."""
    throttle = Throttle()

    for _ in range(20):
        throttle.fail(HERE, 0.0)

    assert throttle.wait(THERE, 0.0) == 0


def test_memory_is_bounded_and_old_failures_are_forgotten() -> None:
    """Beyond the capacity, or after the window, the oldest origin is dropped."""
    throttle = Throttle(capacity=3)

    for number in range(10):
        throttle.fail(("10.0.0.1", str(number)), 0.0)
    assert list(throttle._failures) == [("10.0.0.1", str(n)) for n in (7, 8, 9)]
    throttle.fail(HERE, 61.0)

    assert list(throttle._failures) == [HERE]


@given(st.lists(st.floats(min_value=0, max_value=30), max_size=60))
def test_the_wait_is_what_counting_all_failures_gives(gaps: list[float]) -> None:
    """Keeping eleven times decides as keeping all of them would."""
    throttle, times, now = Throttle(), [], 0.0

    for gap in gaps:
        now += gap
        throttle.fail(HERE, now)
        times.append(now)

    recent = [time for time in times if time + 60.0 > now]
    assert (throttle.wait(HERE, now) > 0) == (len(recent) > 10)
