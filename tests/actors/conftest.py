"""A small server on a mock clock for every test of the product's actors."""

from inspect import iscoroutinefunction
from pathlib import Path

import pytest

from tests.kit.store import migrated, store_url
from tests.kit.tree import clock, components, run_on_mock_clock, tree

__all__ = ["clock", "components", "migrated", "store_url", "tree"]

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test of this folder the mock clock; the runtime's tests have their own kit."""
    for item in items:
        if item.path.parent == _HERE and iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=run_on_mock_clock))
