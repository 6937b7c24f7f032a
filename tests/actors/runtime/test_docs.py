"""The public page of promises keeps its word."""

import re
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

PAGE = Path(__file__).parents[3] / "docs" / "actors.md"
TESTS = Path(__file__).parent
ELSEWHERE = {13, 20}  # 13 is not given; 20 is the product's: a running row has a live actor


def code_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_examples_run() -> None:
    """The counter counts, and its test in the page passes."""
    program, test = code_blocks()
    indented = test.replace("\n", "\n    ")
    source = (
        f"{program}\n"
        "from pipelit.actors.runtime import Restart\n"
        "from pipelit.actors.runtime.testing import open_kit\n"
        f"async def test() -> None:\n    {indented}\n"
    )
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(source, str(PAGE), "exec"), names)

    for name in ("main", "test"):
        main = names[name]
        assert callable(main)
        trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("number", sorted(set(range(1, 20)) - ELSEWHERE))
def test_every_promise_is_on_the_page_and_has_a_test(number: int) -> None:
    """A numbered promise in the page, and a test whose docstring carries the number."""
    tests = "".join(path.read_text() for path in TESTS.glob("test_*.py"))

    assert re.search(rf"^{number}\. \*\*", PAGE.read_text(), re.MULTILINE)
    assert re.search(rf"Promises? (\d+ and )?{number}\b", tests)
