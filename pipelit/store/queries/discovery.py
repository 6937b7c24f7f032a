"""What workflows can do and how they did, for those who look for one. Contract: engine.md §28."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, or_, select

from pipelit.store.schema import edges, executions, nodes, workflows

_ATTACHED = ("tool", "memory")
_FLOW = ("", "loop_body", "loop_return")


def list_callable(
    conn: Connection, owners: Collection[int], *, but: int, limit: int
) -> list[Mapping[str, Any]]:
    """Describe the newest active workflows that are public or of *owners*, one excepted.

    Contract of the keys: `pipelit.engine.discovery.Candidate`.
    """
    columns = (workflows.c.id, workflows.c.slug, workflows.c.name, workflows.c.description)
    wanted = (
        workflows.c.deleted_at.is_(None),
        workflows.c.is_active.is_(True),
        workflows.c.id != but,
        or_(workflows.c.owner_id.in_(owners), workflows.c.is_public.is_(True)),
    )
    newest = select(*columns, workflows.c.tags).where(*wanted).order_by(workflows.c.id.desc())
    rows = list(conn.execute(newest.limit(limit)))
    ids = [row.id for row in rows]
    capabilities, outcomes = _capabilities(conn, ids), _outcomes(conn, ids)
    return [
        {
            "workflow_id": row.id,
            "slug": row.slug,
            "name": row.name,
            "description": row.description,
            "tags": tuple(row.tags or ()),
            **capabilities[row.id],
            **outcomes[row.id],
        }
        for row in rows
    ]


def _capabilities(
    conn: Connection, ids: Sequence[int]
) -> Mapping[int, Mapping[str, tuple[str, ...]]]:
    """Return `{workflow id: {kind of capability: names, sorted}}`."""
    found: defaultdict[int, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    attached: defaultdict[int, set[str]] = defaultdict(set)
    sources: defaultdict[int, set[str]] = defaultdict(set)
    for workflow_id, source, target, label in _edges(conn, ids):
        if label in _ATTACHED:
            attached[workflow_id].add(source)
        elif label in _FLOW:
            sources[workflow_id] |= {source, target}
            found[workflow_id]["starting"].add(source)
    for workflow_id, node_id, kind, config in _nodes(conn, ids):
        own = found[workflow_id]
        if kind.startswith("trigger_"):
            if node_id in own["starting"]:
                own["triggers"].add(kind)
        elif kind == "ai_model":
            own["model_names"].add(config.get("model_name") or "")
        elif node_id in sources[workflow_id]:
            own["node_types"].add(kind)
        if node_id in attached[workflow_id]:
            own["tools"].add(kind)
    kinds = ("triggers", "node_types", "tools", "model_names")
    return {
        workflow_id: {kind: tuple(sorted(found[workflow_id][kind] - {""})) for kind in kinds}
        for workflow_id in ids
    }


def _outcomes(conn: Connection, ids: Sequence[int]) -> Mapping[int, Mapping[str, int]]:
    """Return `{workflow id: how many executions it had, and how many ended well or badly}`."""
    counted = (
        select(executions.c.workflow_id, executions.c.status, func.count())
        .where(executions.c.workflow_id.in_(ids))
        .group_by(executions.c.workflow_id, executions.c.status)
    )
    by_status: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for workflow_id, status, number in conn.execute(counted):
        by_status[workflow_id][status] = number
    return {
        workflow_id: {
            "completed": by_status[workflow_id].get("completed", 0),
            "failed": by_status[workflow_id].get("failed", 0),
            "executions": sum(by_status[workflow_id].values()),
        }
        for workflow_id in ids
    }


def _edges(conn: Connection, ids: Sequence[int]) -> Iterator[tuple[int, str, str, str]]:
    columns = (edges.c.workflow_id, edges.c.source_node_id, edges.c.target_node_id)
    rows = conn.execute(select(*columns, edges.c.edge_label).where(edges.c.workflow_id.in_(ids)))
    return (tuple(row) for row in rows)


def _nodes(conn: Connection, ids: Sequence[int]) -> Iterator[tuple[int, str, str, Any]]:
    columns = (nodes.c.workflow_id, nodes.c.node_id, nodes.c.component_type, nodes.c.config)
    rows = conn.execute(select(*columns).where(nodes.c.workflow_id.in_(ids)))
    return (tuple(row) for row in rows)
