"""aggregator and router: what they compute, and what they refuse."""

import pytest

from pipelit.nodes.aggregator import aggregator
from pipelit.nodes.base import NodeError
from pipelit.nodes.logic import router
from tests.nodes.calls import call

TOTALS = [{"total": 2, "kind": "a"}, {"total": 3, "kind": "b"}, {"total": 2, "kind": "a"}]


@pytest.mark.parametrize(
    ("extra", "items", "value"),
    [
        ({}, [1, "a"], [1, "a"]),
        ({"operation": "list", "field": "total"}, TOTALS, [2, 3, 2]),
        ({"operation": "list", "field": "x"}, [{"y": 1}], [None]),
        ({"operation": "concat"}, ["a", 1, {"b": True}], 'a\n1\n{"b":true}'),
        ({"operation": "concat", "separator": ""}, ["a", "b"], "ab"),
        ({"operation": "concat"}, [], ""),
        ({"operation": "count"}, TOTALS, 3),
        ({"operation": "count"}, [], 0),
        ({"operation": "sum", "field": "total"}, TOTALS[:2], 5),
        ({"operation": "sum"}, [], 0),
        ({"operation": "sum"}, [0.5, "1"], 1.5),
        ({"operation": "avg", "field": "total"}, TOTALS[:2], 2.5),
        ({"operation": "avg"}, [], None),
        ({"operation": "min"}, [3, 1, 2], 1),
        ({"operation": "max"}, [3, 1, 2], 3),
        ({"operation": "min"}, [], None),
        ({"operation": "max"}, [], None),
        ({"operation": "first"}, ["a", "b"], "a"),
        ({"operation": "last"}, ["a", "b"], "b"),
        ({"operation": "first"}, [], None),
        ({"operation": "last"}, [], None),
        (
            {"operation": "unique"},
            [1, "1", 1.0, True, {"a": 1}, {"a": 1}],
            [1, "1", True, {"a": 1}],
        ),
        (
            {"operation": "group_by", "field": "kind"},
            TOTALS,
            {"a": [TOTALS[0], TOTALS[2]], "b": [TOTALS[1]]},
        ),
        ({"operation": "list"}, '["from", "text"]', ["from", "text"]),
        ({"operation": "list"}, [{"up": {"output": "X"}}, {"up": {"output": "Y"}}], ["X", "Y"]),
        ({"operation": "list"}, [{"other": {"output": "X"}}], [{"other": {"output": "X"}}]),
    ],
)
async def test_each_operation_computes_one_value(extra, items, value):
    """Over the items of the source; a loop's results stand for their primary values."""
    outcome = await aggregator(
        call(
            outputs={"up": {"output": items}},
            primary={"up": "output"},
            source_node="up",
            **extra,
        )
    )

    assert outcome.ports == {"aggregated": value}
    assert type(outcome.ports["aggregated"]) is type(value)
    assert outcome.report.warnings == ()


async def test_what_is_no_number_is_skipped_with_a_warning():
    """Only by operations on numbers; the warning counts."""
    outputs = {"up": {"output": [1, "x", None, True]}}

    outcome = await aggregator(call(outputs=outputs, predecessors=("up",), operation="sum"))

    assert outcome.ports == {"aggregated": 1}
    assert outcome.report.warnings == (
        {"code": "not_numeric", "message": "3 item(s) without a number were skipped"},
    )


async def test_without_a_source_there_is_nothing_and_a_warning():
    """As every list node (engine.md §13.1)."""
    outcome = await aggregator(call(operation="count"))

    assert outcome.ports == {"aggregated": 0}
    assert [w["code"] for w in outcome.report.warnings] == ["loop_no_source"]


async def test_an_unknown_operation_is_a_config_error():
    """It is not retried."""
    with pytest.raises(NodeError) as caught:
        await aggregator(call(operation="median"))

    assert str(caught.value) == "Unknown aggregator operation 'median'"
    assert (caught.value.code, caught.value.retryable) == ("ConfigError", False)


@pytest.mark.parametrize(
    ("extra", "route"),
    [
        ({}, "left"),
        ({"condition_field": "state.user_context.tier"}, "gold"),
        ({"condition_field": "cat.category"}, "urgent"),
        ({"condition_expression": "state.node_outputs.cat.category == 'urgent'"}, "urgent"),
        ({"condition_expression": "cat.category == calm"}, ""),
        ({"condition_expression": "cat.count", "condition_field": "route"}, "3"),
        ({"condition_field": "nowhere"}, ""),
    ],
)
async def test_the_router_turns_state_into_a_route(extra, route):
    """A path or a comparison; what is missing is the empty route. It needs no model."""
    outcome = await router(
        call(
            outputs={"cat": {"category": "urgent", "count": 3}},
            state={"route": "left", "user_context": {"tier": "gold"}},
            **extra,
        )
    )

    assert outcome.ports == {"route": route}
    assert outcome.route == route
