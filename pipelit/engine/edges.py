"""The rules an edge must pass: what may be joined to what.

Pure. The rows, their order and their messages are those of edges.md.

Contract: edges.md "Rules on create", engine.md §2.2, §2.3.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias, get_args

import msgspec

from pipelit.engine import specs
from pipelit.engine.definition import END, EdgeDef
from pipelit.engine.specs.types import SLOT_TYPES, Port, TypeSpec

EdgeLabel = Literal[
    "", "llm", "tool", "memory", "output_parser", "loop_body", "loop_return", "skill"
]
"""Every label an edge may carry, in the order error messages list them."""

EDGE_LABELS: tuple[EdgeLabel, ...] = get_args(EdgeLabel)

ALREADY_EXISTS = "Edge already exists."

Form = Literal["string", "list", "conflict"]
NodeTypes: TypeAlias = Mapping[str, str]
"""The nodes of one workflow: `{node_id: component_type}`."""


class Violation(msgspec.Struct, frozen=True):
    """The first rule an edge breaks.

    `form` says how a client is told: a plain `detail`, a list of validation errors, or a 409.
    """

    form: Form
    messages: tuple[str, ...]


_HANDLES: Mapping[str, str] = {label: name for name, label in SLOT_TYPES}
_MEMORY_NODES = frozenset({"memory_read", "memory_write"})

# What else a target type accepts besides its own type. `any` and equality are decided in code.
_WIDENS: Mapping[str, frozenset[str]] = {
    "string": frozenset({"message", "messages"}),
    "message": frozenset({"messages", "object"}),
    "messages": frozenset({"array"}),
}


def is_compatible(source: str, target: str) -> bool:
    """Whether a value of data type *source* may feed an input of data type *target*."""
    return source == target or "any" in (source, target) or target in _WIDENS.get(source, ())


def first_violation(
    edge: EdgeDef, types: NodeTypes, others: Iterable[EdgeDef] = ()
) -> Violation | None:
    """Return the first rule *edge* breaks, or None if it may stand.

    *others* are the edges of the workflow; *edge* itself may be among them (same id).
    """
    return (
        _conditional_form(edge, types)
        or _missing_ends(edge, types)
        or _wrong_ends(edge, types)
        or _duplicate(edge, others)
    )


def rule_violation(edge: EdgeDef, types: NodeTypes) -> str | None:
    """Return the message of the first of rows 4–16 that *edge* breaks, both ends being known."""
    violation = (
        _labelled_conditional(edge) or _missing_ends(edge, types) or _wrong_ends(edge, types)
    )
    return violation.messages[0] if violation else None


def _conditional_form(edge: EdgeDef, types: NodeTypes) -> Violation | None:
    """Rows 1–4."""
    if not edge.is_conditional:
        return None
    if not edge.condition_value:
        return _string("Conditional edges require a non-empty condition_value")
    if not edge.target_node_id:
        return _string("Conditional edges require a non-empty target_node_id")
    if types.get(edge.source_node_id) != "switch":
        return _string("Conditional edges can only originate from 'switch' nodes")
    return _labelled_conditional(edge)


def _labelled_conditional(edge: EdgeDef) -> Violation | None:
    """Row 4."""
    if edge.is_conditional and edge.edge_label:
        return _listed("Conditional edges cannot carry a label")
    return None


def _missing_ends(edge: EdgeDef, types: NodeTypes) -> Violation | None:
    """Rows 5–7."""
    if not edge.target_node_id:
        return _listed("Edge requires a non-empty target_node_id")
    unknown = []
    if edge.source_node_id not in types:
        unknown.append(f"Edge references unknown source node '{edge.source_node_id}'")
    if edge.target_node_id not in types and not _is_end(edge):
        unknown.append(f"Edge references unknown target node '{edge.target_node_id}'")
    return _listed(*unknown) if unknown else None


def _wrong_ends(edge: EdgeDef, types: NodeTypes) -> Violation | None:
    """Rows 8–16."""
    if edge.source_node_id == edge.target_node_id:
        return _listed("A node cannot be connected to itself")
    if _is_end(edge):
        return None
    source, target = types[edge.source_node_id], types[edge.target_node_id]
    if specs.is_trigger(target):
        return _listed("Trigger nodes cannot be the target of an edge")
    if edge.edge_label in _HANDLES:
        message = _attachment_problem(edge.edge_label, source, target)
    elif edge.edge_label:
        message = _loop_problem(edge.edge_label, source, target)
    else:
        message = _flow_problem(edge, source, target)
    return _listed(message) if message else None


def _attachment_problem(label: str, source: str, target: str) -> str | None:
    """Rows 10 and 11."""
    handle = _HANDLES[label]
    if not _ATTACHABLE[label](source):
        output = _first_output(specs.spec_of(source))
        name = output.name if output else "output"
        return (
            f"Source type '{source}' output '{name}' is not compatible with target input '{handle}'"
        )
    spec = specs.spec_of(target)
    accepting = {slot.name for slot in spec.slots} if spec else set()
    # At run time a memory node on an agent is a tool, so the tools handle takes it too.
    if handle in accepting or (handle == "memory" and "tools" in accepting):
        return None
    return f"Node type '{target}' does not accept '{handle}' connections"


_ATTACHABLE: Mapping[str, Callable[[str], bool]] = {
    "llm": lambda source: source == "ai_model",
    "tool": specs.is_tool_capable,
    "memory": lambda source: source in _MEMORY_NODES,
    "output_parser": lambda source: source == "output_parser",
    "skill": lambda source: source == "skill",
}


def _loop_problem(label: str, source: str, target: str) -> str | None:
    """Rows 12 and 13."""
    if label == "loop_body" and source != "loop":
        return "loop_body edges can only originate from 'loop' nodes"
    if label == "loop_return" and target != "loop":
        return "loop_return edges can only target 'loop' nodes"
    return None


def _flow_problem(edge: EdgeDef, source: str, target: str) -> str | None:
    """Rows 14–16."""
    if specs.is_attach_only(source):
        return f"Node type '{source}' can only be connected through a sub-component handle"
    source_spec, target_spec = specs.spec_of(source), specs.spec_of(target)
    if target == "ai_model" and (output := _first_output(source_spec)) is not None:
        return _mismatch(source, output, target, "model", "llm")
    if specs.is_attach_only(target):
        return f"Node type '{target}' cannot be a step in the flow"
    is_control = edge.is_conditional or specs.is_trigger(source) or "loop" in (source, target)
    if source_spec is None or target_spec is None or is_control:
        return None
    return _port_problem(source_spec, target_spec)


def _port_problem(source: TypeSpec, target: TypeSpec) -> str | None:
    """Row 16: some output must fit some input; a type without ports fits everything."""
    if not source.outputs or not target.inputs:
        return None
    if any(
        is_compatible(output.data_type, entry.data_type)
        for output in source.outputs
        for entry in target.inputs
    ):
        return None
    entry = target.inputs[0]
    return _mismatch(
        source.component_type, source.outputs[0], target.component_type, entry.name, entry.data_type
    )


def _mismatch(source: str, output: Port, target: str, entry: str, data_type: str) -> str:
    return (
        f"Source type '{source}' output '{output.name}' ({output.data_type}) "
        f"is not compatible with target '{target}' input '{entry}' ({data_type})"
    )


def _duplicate(edge: EdgeDef, others: Iterable[EdgeDef]) -> Violation | None:
    """Row 17."""
    key = identity(edge)
    if any(other.id != edge.id and identity(other) == key for other in others):
        return Violation("conflict", (ALREADY_EXISTS,))
    return None


def identity(edge: EdgeDef) -> tuple[str, str, str, str, str]:
    """Return what makes two edges of a workflow the same edge."""
    return (
        edge.source_node_id,
        edge.target_node_id,
        edge.edge_type,
        edge.edge_label,
        edge.condition_value,
    )


def _is_end(edge: EdgeDef) -> bool:
    return edge.target_node_id == END and not edge.edge_label


def _first_output(spec: TypeSpec | None) -> Port | None:
    return spec.outputs[0] if spec and spec.outputs else None


def _string(message: str) -> Violation:
    return Violation("string", (message,))


def _listed(*messages: str) -> Violation:
    return Violation("list", messages)
