"""switch, merge and filter: ports, routes, warnings, config errors."""

import pytest

from pipelit.nodes.base import NodeError
from pipelit.nodes.logic import filter_items, merge, switch
from pipelit.nodes.rules import RuleJudge
from pipelit.nodes.worker import WorkerPool
from tests.nodes.calls import FixedClock, call


@pytest.fixture
async def judge():
    async with WorkerPool(size=1) as pool:
        yield RuleJudge(pool, FixedClock())


OUTPUTS = {"read": {"output": "x", "extracted": {"total": 1500}}}
BIG = {"id": "big", "field": "read.extracted.total", "operator": "gt", "value": "1000"}
SMALL = {"id": "small", "field": "read.extracted.total", "operator": "lte", "value": "1000"}
NAMELESS = {"field": "read.extracted.total", "operator": "exists"}


@pytest.mark.parametrize(
    ("extra", "route"),
    [
        ({"rules": [SMALL, BIG]}, "big"),
        ({"rules": [{**BIG, "id": "", "route": "alias"}]}, "alias"),
        ({"rules": [SMALL]}, ""),
        ({"rules": [SMALL], "enable_fallback": True}, "__other__"),
        ({"rules": [SMALL], "enable_fallback": True, "default_route": "rest"}, "rest"),
        ({"rules": [NAMELESS, BIG], "default_route": "rest"}, "rest"),
        ({}, "up"),
        ({"condition_field": "read.output"}, "x"),
        ({"condition_field": "nowhere"}, ""),
        ({"condition_expression": "read.extracted.total"}, "1500"),
        ({"condition_expression": "read.output == 'x'"}, "x"),
        ({"condition_expression": "state.node_outputs.read.output==x"}, "x"),
        ({"condition_expression": 'read.output == "y"'}, ""),
    ],
)
async def test_a_switch_emits_the_route_of_its_first_true_rule(extra, route, judge):
    """First true rule, then default route, then fallback, then nothing; without rules a path."""
    outcome = await switch(call(outputs=OUTPUTS, state={"route": "up"}, **extra), judge=judge)

    assert outcome.ports == {"route": route}
    assert outcome.route == route


@pytest.mark.slow
async def test_regular_expressions_decide_too(judge):
    """A pattern is searched, its opposite negated."""
    rules = [
        {"id": "no", "field": "read.output", "operator": "not_matches_regex", "value": "^x$"},
        {"id": "yes", "field": "read.output", "operator": "matches_regex", "value": "^x$"},
    ]

    outcome = await switch(call(outputs=OUTPUTS, rules=rules), judge=judge)

    assert outcome.route == "yes"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "subject", "message"),
    [
        ({"operator": "like"}, "", "Unknown operator 'like'"),
        ("text", "", "Rule 1 must be an object"),
        (
            {"operator": "matches_regex", "value": "[bad", "field": "read.output"},
            "x",
            "Invalid regular expression '[bad': unterminated character set at position 0",
        ),
        (
            {"operator": "matches_regex", "value": "(a+)+$", "field": "read.output"},
            "a" * 50 + "b",
            "Regular expression timed out",
        ),
        (
            {"operator": "matches_regex", "value": "a" * 1001, "field": "read.output"},
            "x",
            f"Invalid regular expression '{'a' * 200}': longer than 1000 characters",
        ),
    ],
)
@pytest.mark.parametrize("component", [switch, filter_items])
async def test_rules_that_cannot_be_evaluated_are_config_errors(
    component, rule, subject, message, judge
):
    """Switch and filter refuse alike, without retry."""
    outputs = {"read": {"output": subject}}
    if isinstance(rule, dict) and component is filter_items:
        rule = {**rule, "field": ""}

    with pytest.raises(NodeError) as caught:
        await component(call(outputs=outputs, source_node="read", rules=[rule]), judge=judge)

    assert message == str(caught.value)
    assert (caught.value.code, caught.value.retryable) == ("ConfigError", False)


async def test_a_bad_length_is_a_warning(judge):
    """A length compared with no integer is noted once per rule."""
    rules = [{"id": "a", "field": "route", "operator": "length_gt", "value": "many"}]

    outcome = await switch(call(rules=rules), judge=judge)

    assert [warning["code"] for warning in outcome.report.warnings] == ["bad_length_value"]


MERGE = {
    "t": {"text": "hi", "payload": {}},
    "a": {"output": "A text", "messages": [1], "extra": 1},
    "b": {"output": ["B", "text"], "extra": 2},
    "c": {},
}


@pytest.mark.parametrize(
    ("extra", "merged"),
    [
        ({}, ["A text", "B", "text"]),
        ({"mode": "concat"}, ["A text", "B", "text"]),
        ({"source_nodes": ["b", "gone", "a"]}, ["B", "text", "A text"]),
        ({"include_all": True}, ["A text", "B", "text"]),
        ({"mode": "combine"}, {"output": ["B", "text"], "extra": 2}),
        ({"mode": "combine", "source_nodes": ["a"]}, {"output": "A text", "extra": 1}),
        ({"source_nodes": ["t"]}, ["hi"]),
    ],
)
async def test_merge_joins_lists_or_ports(extra, merged):
    """Append spreads lists of primary values; combine overlays ports without `messages`."""
    subject = call(
        outputs=MERGE,
        trigger="t",
        predecessors=("a", "b", "c"),
        primary={"t": "text", "a": "output", "b": "output", "c": "output"},
        **extra,
    )

    outcome = await merge(subject)

    assert outcome.ports == {"merged": merged}


SCORES = [{"score": 0.9}, {"score": 0.1}, {"other": 1}]
GOOD = [{"field": "score", "operator": "gte", "value": "0.7"}]


@pytest.mark.parametrize(
    ("source", "extra", "filtered"),
    [
        (SCORES, {"rules": GOOD}, [{"score": 0.9}]),
        (SCORES, {}, SCORES),
        ('[{"score": 1}]', {"rules": GOOD}, [{"score": 1}]),
        ('{"list": [1, 2]}', {"field": "list"}, [1, 2]),
        ("ab", {}, ["ab"]),
        (None, {}, []),
        ([3, 8, None], {"rules": [{"operator": "gt", "value": 5}]}, [8]),
        ([3, 8], {"rules": [{"operator": "gt", "value": 5}, {"operator": "lt", "value": 7}]}, []),
    ],
)
async def test_filter_keeps_the_items_that_pass_all_rules(source, extra, filtered, judge):
    """Items come from the source leniently; order is kept; no rules let all pass."""
    subject = call(outputs={"list": {"output": source}}, source_node="list", **extra)

    outcome = await filter_items(subject, judge=judge)

    assert outcome.ports == {"filtered": filtered}
    assert outcome.report.warnings == ()


async def test_filter_without_a_source_takes_the_predecessor_then_the_output(judge):
    """One predecessor gives the items; otherwise `state.output`; otherwise a warning."""
    outputs = {"a": {"output": [1]}, "b": {"output": [2]}, "t": {"text": "hi"}}
    one = call(outputs=outputs, predecessors=("a",))
    two = call(outputs=outputs, predecessors=("a", "b"), state={"output": [3]})
    none = call(outputs=outputs, predecessors=("a", "b"))
    trigger = call(outputs=outputs, trigger="t", predecessors=("t",), primary={"t": "text"})

    outcomes = [await filter_items(subject, judge=judge) for subject in (one, two, none, trigger)]

    assert [outcome.ports["filtered"] for outcome in outcomes] == [[1], [3], [], []]
    codes = [[w["code"] for w in outcome.report.warnings] for outcome in outcomes]
    assert codes == [[], [], ["loop_no_source"], ["loop_no_source"]]
