"""What the tests of the DSL share: documents written short, graphs written as text."""

from pipelit.engine.definition import NodeDef
from pipelit.engine.dsl import Catalogue, Compiled, FindSource, check_document
from pipelit.engine.dsl.fork import no_source

NOBODY = Catalogue()


def drawn(compiled: Compiled) -> list[str]:
    """Write the edges as `source → target` with label or value."""
    return [
        f"{edge.source_node_id} → {edge.target_node_id}"
        + (f" :{edge.edge_label}" if edge.edge_label else "")
        + (f" ?{edge.condition_value}" if edge.is_conditional else "")
        for edge in compiled.edges
    ]


def config_of(compiled: Compiled, node_id: str) -> dict[str, object]:
    """Return the extra_config of a node."""
    return dict(find_in(compiled, node_id).extra)


def find_in(compiled: Compiled, node_id: str) -> NodeDef:
    """Return a node."""
    return next(node for node in compiled.nodes if node.node_id == node_id)


def steps(*lines: str, head: str = "name: x\n") -> str:
    """Write a document of steps, one flow mapping each."""
    return f"{head}steps:\n" + "\n".join(f"  - {line}" for line in lines)


def error_of(text: str, catalogue: Catalogue = NOBODY, find_source: FindSource = no_source) -> str:
    """Return the one error of a document."""
    checked = check_document(text, catalogue, find_source)
    assert (checked.valid, checked.node_count, len(checked.errors)) == (False, 0, 1), checked
    return checked.errors[0]
