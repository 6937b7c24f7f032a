"""What an execution was at when its server went. Contract: engine.md §10.3."""

from collections.abc import Collection

import msgspec

from pipelit.engine.graph import Plan, Snapshot
from pipelit.engine.journal import RunState
from pipelit.engine.records import parse_record
from pipelit.nodes.agent import Progress
from pipelit.store.queries.journal import Loaded


def only_waits(loaded: Loaded, live_keys: Collection[str]) -> bool:
    """Tell whether nothing was in flight but waits, for a time, for an answer or for children.

    Taking such a run up again is no recovery.

    Args:
        loaded: the run.
        live_keys: the keys of its children that have not ended.
    """
    try:
        state = RunState(Plan(msgspec.convert(loaded.snapshot, Snapshot)))
        state.fold(parse_record(record) for record in loaded.records)
    except (msgspec.ValidationError, LookupError):
        # Such a journal is what recoveries are counted for.
        return False
    waiting = state.waiting.keys() | {question.node_id for question in state.questions.values()}
    if live_keys:
        waiting |= {node for node in state.in_flight if _awaits(node, state, loaded, live_keys)}
    going_on = (state.ready.keys() - state.loops.keys()) | state.held.keys()
    return bool(waiting) and going_on <= waiting


def _awaits(node_id: str, state: RunState, loaded: Loaded, live_keys: Collection[str]) -> bool:
    """Tell whether all that a node was at was waiting for children: an agent, in its tool calls."""
    iteration = state.iteration_of(node_id)
    own = f"{loaded.id}:{node_id}:{iteration}"
    progress = loaded.checkpoints.get((node_id, iteration))
    if progress is None:
        return own in live_keys
    try:
        calls = msgspec.convert(progress, Progress).open_calls
    except msgspec.ValidationError:
        return False
    started = [f"{own}:{call.id}" for call in calls]
    return bool(started) and all(
        any(key == call or key.startswith(f"{call}:") for key in live_keys) for call in started
    )
