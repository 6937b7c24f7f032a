"""What a pending execution begins with: its graph, and what it takes over as a retry.

Contract: engine.md §6.5, §10.8.
"""

from typing import Any

import msgspec

from pipelit.actors.plans import Plans
from pipelit.engine.graph import Plan, Snapshot
from pipelit.engine.records import parse_record
from pipelit.engine.takeover import Takeover, take_over
from pipelit.store import Store
from pipelit.store.queries.journal import Loaded
from pipelit.store.queries.retries import find_past


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """A graph, its stored form and its errors, and what is taken over from the run before."""

    plan: Plan
    snapshot: Any
    problems: tuple[str, ...] = ()
    takeover: Takeover | None = None


async def find_beginning(store: Store, plans: Plans, loaded: Loaded) -> Beginning:
    """Return what *loaded* begins with: today's graph, unless it came with one."""
    if loaded.snapshot is not None:
        plan = Plan(msgspec.convert(loaded.snapshot, Snapshot))
        found = Beginning(plan=plan, snapshot=loaded.snapshot)
    else:
        compiled = await plans.get(
            loaded.workflow_id, loaded.workflow_version, loaded.trigger_node_id
        )
        found = Beginning(
            plan=compiled.plan, snapshot=compiled.snapshot, problems=compiled.problems
        )
    if loaded.retry_of is None:
        return found
    return msgspec.structs.replace(found, takeover=await _find_takeover(store, loaded, found.plan))


async def _find_takeover(store: Store, loaded: Loaded, plan: Plan) -> Takeover | None:
    """Return what a retry takes over; None if the run before never started, or is deleted."""
    source = loaded.retry_of
    assert source is not None
    past = await store.read(lambda conn: find_past(conn, source), patient=True)
    if past is None:
        return None
    return take_over(
        source,
        map(parse_record, past.records),
        old=Plan(msgspec.convert(past.snapshot, Snapshot)),
        plan=plan,
        from_node=loaded.retry_from,
    )
