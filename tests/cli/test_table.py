"""Tables for people fit their terminal."""

import pytest

from pipelit.cli.actors import HEADERS
from pipelit.cli.table import columns_that_fit

PATH = "/executions/725dea03-8de4-4470-979e-599bc2deb90f"
ROW = (PATH, "running", "0", "0/50000", "schedule_keeper", "AttemptEnded 12 ms")


@pytest.mark.parametrize(("width", "count"), [(40, 4), (80, 4), (100, 5), (130, 6)])
def test_a_terminal_too_narrow_does_without_the_last_columns(width: int, count: int) -> None:
    """The tree of actors on 80 columns keeps path, state, restarts and mailbox unfolded."""
    assert columns_that_fit(HEADERS, [ROW], 2, width) == count
