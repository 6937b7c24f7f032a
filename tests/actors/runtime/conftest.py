"""The kit of a small system on a mock clock. Its records are checked when the test is over."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from inspect import iscoroutinefunction
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from pipelit.actors.runtime.testing import Kit, open_kit

_HERE = Path(__file__).parent


def _run_on_mock_clock(
    main: Callable[[], Awaitable[None]],
    clock: None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> None:
    trio.run(main, clock=MockClock(autojump_threshold=0), instruments=instruments)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test here the mock clock, also those that know it only through the kit."""
    for item in items:
        if _HERE in item.path.parents and iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=_run_on_mock_clock))


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    async with open_kit() as kit:
        yield kit
