"""The demo's model and its workflow, without a server."""

from pipelit.cli.demo.graph import EDGES, SLOW_PAUSE, build_nodes, demo_model
from pipelit.llm.scripted import Ask, Hang, Say


def ask(text: str) -> Ask:
    return Ask("demo-1", [{"role": "user", "content": text}])


def test_the_demo_model_says_that_it_is_scripted() -> None:
    """Nobody takes it for a real one."""
    move = demo_model(ask("hello"))

    assert isinstance(move, Say)
    assert "scripted" in "".join(move.pieces)


def test_asked_to_be_slow_the_demo_model_leaves_time_to_kill_the_server() -> None:
    """Its answer takes over two seconds."""
    move = demo_model(ask("slowly, hello"))

    assert isinstance(move, Say)
    assert move.pause == SLOW_PAUSE
    assert len(move.pieces) * move.pause > 2


def test_asked_to_hang_the_demo_model_hangs() -> None:
    """There is something to cancel."""
    assert demo_model(ask("Please hang.")) == Hang()


def test_every_edge_of_the_demo_joins_nodes_that_exist() -> None:
    """The workflow is whole."""
    known = {node["node_id"] for node in build_nodes(1)}

    assert {edge[end] for edge in EDGES for end in ("source_node_id", "target_node_id")} <= known
