"""Whole-workflow validation: every text of engine.md §4.2, in its order."""

from collections.abc import Mapping
from typing import Any

from pipelit.engine.advice import Origin
from pipelit.engine.definition import END, EdgeDef, NodeDef
from pipelit.engine.validate import Report, validate_scope, validate_workflow


def nodes(**types: str | tuple[str, Mapping[str, Any]]) -> list[NodeDef]:
    """Build nodes from `id=type` or `id=(type, extra_config)`, in that row order."""
    built = []
    for number, (node_id, told) in enumerate(types.items(), start=1):
        component_type, extra = (told, {}) if isinstance(told, str) else told
        built.append(
            NodeDef(
                id=number,
                node_id=node_id,
                component_type=component_type,
                config={"extra_config": dict(extra)},
            )
        )
    return built


def edges(*written: str) -> list[EdgeDef]:
    """Build edges from `a > b`, `a > b :label` or `a > b ?value`, in that row order."""
    built = []
    for number, text in enumerate(written, start=1):
        words = text.replace(">", " ").split()
        marks = [word for word in words if word[0] in ":?"]
        ends = [word for word in words if word[0] not in ":?"] + [""]
        is_conditional = any(mark[0] == "?" for mark in marks)
        built.append(
            EdgeDef(
                id=number,
                source_node_id=ends[0],
                target_node_id=ends[1],
                edge_type="conditional" if is_conditional else "direct",
                edge_label=next((mark[1:] for mark in marks if mark[0] == ":"), ""),
                condition_value=next((mark[1:] for mark in marks if mark[0] == "?"), ""),
            )
        )
    return built


CODE = ("code", {"code": "return 1"})


def test_an_empty_workflow_is_valid() -> None:
    """Nothing is wrong with nothing."""
    assert validate_workflow([], []) == Report()
    assert Report().valid


def test_dangling_edges_of_imported_data_are_named() -> None:
    """Unknown ends have their own texts; `__end__` is not unknown."""
    report = validate_workflow(nodes(a=CODE), edges("x > a", "a > y", "x > y", f"a > {END}"))

    assert report.errors == (
        "Edge references unknown source node 'x'",
        "Edge references unknown target node 'y'",
        "Edge references unknown source node 'x'",
        "Edge references unknown target node 'y'",
    )


def test_conditional_edges_have_texts_of_their_own() -> None:
    """Value, target and source of a conditional edge are each checked."""
    report = validate_workflow(
        nodes(s="switch", a=CODE, b=CODE),
        edges("s > a ?", "s > ?v", "s > y ?v", "b > s ?v", f"s > {END} ?v"),
    )

    assert report.errors == (
        "Conditional edge from 's' is missing condition_value",
        "Conditional edge from 's' is missing target_node_id",
        "Conditional edge from 's' targets unknown node 'y'",
        "Conditional edge from 'b' (code): only 'switch' nodes can have conditional edges",
    )


def test_a_broken_rule_of_an_edge_names_the_edge() -> None:
    """Rows 4–16 of edges.md are repeated with both ends in front."""
    report = validate_workflow(nodes(t="trigger_chat", a=CODE), edges("t > a", "a > t", "a >"))

    assert report.errors == (
        "Edge a → t: Trigger nodes cannot be the target of an edge",
        "Edge a → : Edge requires a non-empty target_node_id",
        "Cycle detected without a loop node: t → a → t",
    )


def test_a_mandatory_model_is_missed() -> None:
    """Agents, categorizers and extractors need a model; a router does not."""
    report = validate_workflow(
        nodes(a="agent", r="router", c="categorizer", m="ai_model"), edges("m > c :llm")
    )

    assert report.errors == ("Node 'a' is missing required 'model' connection",)


def test_an_extractor_needs_a_schema_from_somewhere() -> None:
    """A parser or an extraction_schema will do."""
    report = validate_workflow(
        nodes(
            x="extractor",
            y=("extractor", {"extraction_schema": {"a": "string"}}),
            z="extractor",
            m="ai_model",
            p="output_parser",
        ),
        edges("m > x :llm", "m > y :llm", "m > z :llm", "p > z :output_parser"),
    )

    assert report.errors == (
        "Node 'x' (extractor) requires an output_parser connection or an extraction_schema",
    )


def test_rules_must_be_objects_with_known_operators() -> None:
    """A missing or empty operator is `equals`."""
    rules = [
        {"operator": "gt"},
        {"operator": ""},
        {},
        {"operator": "like"},
        7,
        {"operator": ["gt"]},
    ]

    report = validate_workflow(nodes(f=("filter", {"rules": rules})), [])

    assert report.errors == (
        "Node 'f': unknown operator 'like'",
        "Node 'f': Rule 5 must be an object",
        "Node 'f': unknown operator '['gt']'",
    )


def test_what_a_step_cannot_do_without_is_asked_for() -> None:
    """A dual type needs its key only where the flow reaches it."""
    report = validate_workflow(
        nodes(
            t="trigger_chat",
            c=("code", {"code": "  "}),
            w="workflow",
            h="http_request",
            tool="http_request",
            ok=("calculator", {"expression": "1"}),
        ),
        edges("t > c", "t > h", "t > w", "t > ok"),
    )

    assert report.errors == (
        "Node 'c' (code): 'code' is required",
        "Node 'w' (workflow): 'target_workflow' is required",
        "Node 'h' (http_request): 'url' is required",
    )


def test_a_subworkflow_by_id_is_a_target() -> None:
    """`subworkflow_id` stands in for the slug."""
    node = NodeDef(id=1, node_id="w", component_type="workflow", subworkflow_id=4)

    assert validate_workflow([node], []).errors == ()


def test_a_cycle_is_named_once_from_its_earliest_node() -> None:
    """Only the return edge of a loop may lead back."""
    report = validate_workflow(
        nodes(t="trigger_chat", a=CODE, b=CODE, c=CODE, d=CODE),
        edges("t > a", "a > b", "b > c", "c > a", "c > d"),
    )

    assert report.errors == ("Cycle detected without a loop node: a → b → c → a",)


def test_two_knots_are_two_cycles() -> None:
    """Every knot of the graph is reported, what lies between them is not."""
    report = validate_workflow(
        nodes(a=CODE, b=CODE, between=CODE, c=CODE, d=CODE),
        edges("a > b", "b > a", "b > between", "between > c", "c > d", "d > c"),
    )

    assert report.errors == (
        "Cycle detected without a loop node: a → b → a",
        "Cycle detected without a loop node: c → d → c",
    )


def test_a_sound_loop_is_no_cycle() -> None:
    """Body and return edges make a loop, nested ones too."""
    report = validate_workflow(
        nodes(t="trigger_manual", l="loop", i="loop", a=CODE, b=CODE, z=CODE),
        edges(
            *("t > l", "l > i :loop_body", "i > a :loop_body", "a > i :loop_return"),
            *("i > b", "b > l :loop_return", "l > z"),
        ),
    )

    assert report == Report()


def test_a_return_must_come_from_the_body() -> None:
    """A stray return edge is a graph error."""
    report = validate_workflow(
        nodes(t="trigger_manual", l="loop", a=CODE, z=CODE),
        edges("t > l", "l > a :loop_body", "a > l :loop_return", "l > z", "z > l :loop_return"),
    )

    assert report.errors == ("loop_return edge from 'z' does not come from the body of loop 'l'",)


def test_a_body_node_entered_from_outside_leaks() -> None:
    """A node is either run per item or once, not both."""
    report = validate_workflow(
        nodes(t="trigger_manual", l="loop", a=CODE, z=CODE, after=CODE),
        edges("t > l", "l > a :loop_body", "a > l :loop_return", "l > z", "a > z", "z > after"),
    )

    assert report.errors == ("Node 'z' is both inside and outside the body of loop 'l'",)


def test_errors_come_edges_first_then_nodes_then_graph() -> None:
    """Within a group the order is that of the rows."""
    report = validate_workflow(
        nodes(b=CODE, a="agent", c=CODE), edges("c > b", "b > c", "a > gone", "x > a")
    )

    assert report.errors == (
        "Edge references unknown target node 'gone'",
        "Edge references unknown source node 'x'",
        "Node 'a' is missing required 'model' connection",
        "Cycle detected without a loop node: b → c → b",
    )


def test_every_warning_has_its_text_and_its_place() -> None:
    """Warnings come in the order of the table and leave the workflow valid."""
    rules = [{"id": "big", "field": "x"}, {"route": "small", "field": "x"}, {"field": "y"}]
    graph = nodes(
        t="trigger_chat",
        s=("switch", {"rules": rules, "default_route": "rest"}),
        a=("code", {"code": "x = '{{trigger.text}}'"}),
        lone=CODE,
        deep=("deep_agent", {"subagents": [{"name": "n", "description": "d"}]}),
        m1="ai_model",
        m2="ai_model",
        l="loop",
        self=("workflow", {"target_workflow": "mine"}),
    )
    graph.append(NodeDef(id=20, node_id="2-b", component_type="wait"))
    report = validate_workflow(
        graph,
        edges(
            *("t > s", "s > a ?big", "s > deep ?odd", "s > l ?default", "s > l ?rest", "s > self"),
            *("m1 > deep :llm", "m2 > deep :llm", "l > 2-b"),
        ),
        Origin(workflow_id=3, slug="mine"),
    )

    assert report.valid
    assert report.warnings == (
        "Node 's': no edge for route 'small'",
        "Conditional edge from 's': no rule produces 'odd'",
        "Node 'lone' is not reachable from any trigger",
        "Node 'deep' has more than one model; the first one is used",
        "Loop 'l' has no body",
        "Direct edges of switch 's' are ignored",
        "Node 'a': use the variable trigger instead of a template in code",
        "Node 'deep': subagent 1 has no 'system_prompt'",
        "Node 'self' calls its own workflow",
        "Node id '2-b' can only be used as nodes['2-b'] in templates",
    )


def test_what_is_meant_raises_no_warning() -> None:
    """Legacy mappings, error edges, templates and attached tools are all in order."""
    switch = ("switch", {"rules": [{"id": "a"}]})
    mapped = EdgeDef(
        id=9,
        source_node_id="s",
        target_node_id="x",
        edge_type="conditional",
        condition_value="default",
        condition_mapping={"a": "x"},
    )
    report = validate_workflow(
        nodes(
            t="trigger_chat",
            s=switch,
            x=("code", {"language": "template", "code": "{{ trigger.text }}"}),
            free="switch",
            agent="agent",
            m="ai_model",
            calc="calculator",
            oops="error_handler",
        ),
        [
            *edges(
                *("t > s", "s > oops", "x > free", "free > agent ?anything"),
                *("m > agent :llm", "calc > agent :tool"),
            ),
            mapped,
        ],
    )

    assert report == Report()


def test_a_scope_ignores_what_an_execution_does_not_use() -> None:
    """Broken nodes elsewhere do not matter; a dangling edge of the scope does."""
    graph = nodes(t="trigger_chat", other="trigger_manual", a=CODE, b="agent")
    joined = edges("t > a", "other > b", "a > b", "a > gone", "x > a")

    assert validate_scope(graph, joined, {"t", "a"}) == (
        "Edge references unknown target node 'gone'",
    )
    assert validate_scope(graph, joined[:3], {"t", "a", "b"}) == (
        "Node 'b' is missing required 'model' connection",
    )
