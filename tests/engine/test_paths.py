"""Field paths into state and items, rule by rule."""

import pytest

from pipelit.engine.paths import read_item_path, read_state_path

STATE = {
    "route": "big",
    "trigger": {"text": "hi", "payload": {"items": [{"sku": "A1"}]}, "route": "hidden"},
    "user_context": {"tier": "gold"},
    "loop": {"index": 3},
    "node_outputs": {
        "read": {"extracted": {"total": 7}, "output": '{"a": {"b": [10, 20]}}', "bad": "{oops"},
        "trigger": {"text": "shadowed"},
    },
    "output": None,
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("route", "big"),
        ("node_outputs.read.extracted.total", 7),
        ("read.extracted.total", 7),
        ("state.user_context.tier", "gold"),
        ("trigger.payload.items.0.sku", "A1"),
        ("payload.items.0.sku", "A1"),
        ("loop.index", 3),
        ("text", "hi"),
        ("{{ read.extracted.total }}", 7),
        ("{{text}}", "hi"),
        ("read.output.a.b.1", 20),
        ("read.output", '{"a": {"b": [10, 20]}}'),
        ("read.bad.x", None),
        ("trigger.payload.items.-1.sku", None),
        ("trigger.payload.items.1", None),
        ("trigger.payload.items.٠", None),
        ("trigger.payload.items." + "9" * 5000, None),
        ("trigger.text", "hi"),
        ("output", None),
        ("nowhere", None),
        ("route.x", None),
        ("", None),
        ("state.", None),
    ],
)
def test_a_state_path_reads_what_the_contract_says(path, expected):
    """State keys first, then committed nodes, then the trigger; missing is null."""
    assert expected == read_state_path(STATE, path)


@pytest.mark.parametrize(
    ("item", "path", "expected"),
    [
        ({"a": {"b": 1}}, "a.b", 1),
        ({"a": '{"b": 2}'}, "a.b", 2),
        ({"a": 1}, "b", None),
        ({"a": 1}, "", {"a": 1}),
        ("text", "a.b", "text"),
        ([1, 2], "0", [1, 2]),
        (None, "a", None),
    ],
)
def test_an_item_path_reads_objects_and_passes_the_rest(item, path, expected):
    """Anything but an object is itself, whatever the path says."""
    assert expected == read_item_path(item, path)
