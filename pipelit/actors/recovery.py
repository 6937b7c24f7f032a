"""What an execution was at when its server went. Contract: engine.md §10.3."""

import msgspec

from pipelit.engine.graph import Plan, Snapshot
from pipelit.engine.journal import RunState
from pipelit.engine.records import parse_record
from pipelit.store.queries.journal import Loaded


def only_waits(loaded: Loaded) -> bool:
    """Tell whether nothing was in flight but waits, for a time or for an answer.

    Taking such a run up again is no recovery.
    """
    try:
        state = RunState(Plan(msgspec.convert(loaded.snapshot, Snapshot)))
        state.fold(parse_record(record) for record in loaded.records)
    except (msgspec.ValidationError, LookupError):
        # Such a journal is what recoveries are counted for.
        return False
    waiting = state.waiting.keys() | {question.node_id for question in state.questions.values()}
    going_on = (state.ready.keys() - state.loops.keys()) | state.held.keys()
    return bool(waiting) and going_on <= waiting
