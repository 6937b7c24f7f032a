"""A workflow that is written down and read again is the same workflow. engine.md §27.5."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine.definition import END, EdgeDef, NodeDef
from pipelit.engine.dsl import BuildError, Head, compile_document, write_document
from pipelit.engine.dsl.document import Head as _Head
from pipelit.engine.dsl.graph_form import build_graph_form, parse_graph_head
from pipelit.engine.dsl.source import load_mapping
from pipelit.engine.edges import EDGE_LABELS, identity
from pipelit.engine.specs import COMPONENT_TYPES, complete_config
from tests.engine.test_dsl import CALLED, EXAMPLE_A, EXAMPLE_B, LISTED

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(
        ["", "null", "yes", "1_0", "2026-01-01", "<<", "=", "~", "a: b", "\n x\n", "#"]
    )
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=6) | st.sampled_from(["<<", "1", "null"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=6), values, max_size=3)
ids = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_-]{0,8}\Z")
links = st.none() | st.integers(1, 2**63 - 1)


@st.composite
def a_node(draw: st.DrawFn, row: int, node_id: str) -> NodeDef:
    kind = draw(st.sampled_from(COMPONENT_TYPES))
    given_config: dict[str, Any] = {
        "system_prompt": draw(st.text(max_size=20)),
        "extra_config": draw(objects),
        "trigger_config": draw(objects),
        "model_name": draw(st.text(max_size=5)),
        "temperature": draw(st.none() | st.floats(0, 2)),
        "is_active": draw(st.booleans()),
    }
    return NodeDef(
        id=row,
        node_id=node_id,
        component_type=kind,
        label=draw(st.none() | st.text(max_size=9)),
        is_entry_point=draw(st.booleans()),
        interrupt_before=kind == "human_confirmation" or draw(st.booleans()),
        interrupt_after=draw(st.booleans()),
        config=complete_config(kind, given_config),
        subworkflow_id=draw(links),
        position_x=draw(st.integers(-(10**6), 10**6)),
        position_y=draw(st.integers(-(10**6), 10**6)),
        code_block_id=draw(links),
    )


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[NodeDef], list[EdgeDef]]:
    names = draw(st.lists(ids, unique=True, min_size=1, max_size=5))
    nodes = [draw(a_node(row, name)) for row, name in enumerate(names, start=1)]
    edge = st.builds(
        EdgeDef,
        id=st.just(0),
        source_node_id=st.sampled_from(names),
        target_node_id=st.sampled_from([*names, END]),
        edge_type=st.sampled_from(["direct", "conditional"]),
        edge_label=st.sampled_from(EDGE_LABELS),
        condition_mapping=st.none() | objects,
        condition_value=st.text(max_size=9),
        priority=st.integers(-9, 9),
    )
    drawn = draw(st.lists(edge, max_size=6, unique_by=identity))
    return nodes, [msgspec.structs.replace(e, id=row) for row, e in enumerate(drawn, start=1)]


heads = st.builds(
    Head,
    name=st.text(min_size=1, max_size=20).filter(str.strip),
    description=st.text(max_size=20),
    tags=st.lists(st.text(min_size=1, max_size=5), max_size=3).map(tuple),
    max_execution_seconds=st.none() | st.integers(1, 86_400),
)


@given(heads, graphs())
def test_what_is_written_reads_as_the_same_graph(
    head: _Head, graph: tuple[list[NodeDef], list[EdgeDef]]
) -> None:
    """Every node with its config, every edge, in their order; and nothing is unknown to us."""
    nodes, edges = graph

    raw = load_mapping(write_document(head, nodes, edges))

    draft = build_graph_form(raw)
    assert parse_graph_head(raw) == head
    assert list(draft.nodes.values()) == nodes
    assert draft.edges == edges
    assert draft.warnings == ()


@given(heads, graphs())
def test_writing_what_was_read_writes_the_same_text(
    head: _Head, graph: tuple[list[NodeDef], list[EdgeDef]]
) -> None:
    """A document is a fixed point: it can be kept under version control."""
    text = write_document(head, *graph)

    draft = build_graph_form(load_mapping(text))

    assert write_document(head, draft.nodes.values(), draft.edges) == text


@pytest.mark.parametrize(
    ("text", "catalogue"), [(EXAMPLE_A, CALLED), (EXAMPLE_B, LISTED)], ids=["27.7", "27.8"]
)
def test_a_workflow_in_steps_comes_back_as_the_same_graph(text: str, catalogue: Any) -> None:
    """The contract's two worked examples."""
    made = compile_document(text, catalogue)
    head = Head(name=made.name, description=made.description, tags=made.tags)

    again = compile_document(write_document(head, made.nodes, made.edges), catalogue)

    assert again == made


def test_texts_of_several_lines_are_written_as_blocks() -> None:
    """A prompt reads as its author wrote it; what goes without saying is left out."""
    prompt = "Be brief.\nBe kind.\n"
    node = NodeDef(
        id=1, node_id="a", component_type="agent",
        config=complete_config("agent", {"system_prompt": prompt}),
    )  # fmt: skip

    assert write_document(Head(name="x"), [node], []) == (
        "workflow:\n  name: x\nnodes:\n  - id: a\n    type: agent\n    config:\n"
        "      system_prompt: |\n        Be brief.\n        Be kind.\nedges: []\n"
    )


def test_what_could_not_be_read_back_is_not_written() -> None:
    """Longer than a document may be: said while the workflow is still there."""
    config = complete_config("code", {"extra_config": {"code": "x" * 262_144}})
    node = NodeDef(id=1, node_id="a", component_type="code", config=config)

    with pytest.raises(BuildError, match="makes no document: Invalid YAML: longer than 262144"):
        write_document(Head(name="x"), [node], [])
