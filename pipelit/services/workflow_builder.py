"""Builds workflows from documents, for agents. Contract: engine.md §27, node-types.md §8.8."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import chain, count
from typing import Any

import msgspec
from sqlalchemy import Connection

from pipelit.clock import Clock
from pipelit.engine.dsl import Compiled, DslError, compile_document
from pipelit.errors import BadRequest, Conflict, NotFound
from pipelit.nodes.json_tools import Acting
from pipelit.services.agent_lookup import find_caller, find_parent
from pipelit.services.documents import load_catalogue, source_finder
from pipelit.services.model_lists import ModelLists
from pipelit.services.node_rules import check_references
from pipelit.services.principal import Principal
from pipelit.services.tool_owner import get_acting
from pipelit.store import Store
from pipelit.store.queries import workflows as queries
from pipelit.store.queries.edges import insert_edge
from pipelit.store.queries.nodes import insert_node
from pipelit.store.queries.workflows import WorkflowRow

NO_PARENT = "Parent workflow not found"
RESERVED = frozenset({"node-types", "validate-dsl", "batch-delete"})
MAX_TAGS = 50
_MAX_SLUG = 255
_COMMON = 240  # of a slug, whatever its suffix


class OwnersWorkflows:
    """Implements `pipelit.nodes.workflow_tools.WorkflowBuilder`."""

    def __init__(self, store: Store, clock: Clock, lists: ModelLists) -> None:
        self._store = store
        self._clock = clock
        self._lists = lists

    async def create(self, acting: Acting, dsl: str, tags: Sequence[str]) -> Mapping[str, Any]:
        """Compile and store a document; the same call again returns the first workflow.

        Raises:
            BadRequest: it does not compile.
            NotFound: the caller's workflow, or something a node refers to, is gone.
            Conflict: somebody took the slug this very moment.
        """
        try:
            # Compiling takes a while: in a reader's thread, not in the writer's.
            compile_ = partial(_compile, acting=acting, text=dsl, lists=self._lists)
            compiled = await self._store.read(compile_)
        except DslError as error:
            raise BadRequest(str(error)) from error
        compiled = msgspec.structs.replace(
            compiled, tags=tuple(dict.fromkeys((*compiled.tags, *tags)))
        )
        if len(compiled.tags) > MAX_TAGS:
            raise BadRequest(f"tags must be at most {MAX_TAGS} items")
        now = self._clock.now()
        values = {"created_at": now, "updated_at": now, "dedupe_key": acting.key}
        store = partial(_store, acting=acting, compiled=compiled, values=values)
        try:
            made = await self._store.write(store)
        except queries.SlugTaken as error:
            raise Conflict(f"Slug '{compiled.slug}' is taken") from error
        return {
            "workflow_id": made.id,
            "slug": made.slug,
            "node_count": made.node_count,
            "edge_count": made.edge_count,
            "mode": "created" if compiled.forked_from is None else "forked",
        }


def choose_slug(wanted: str, taken: Collection[str]) -> str:
    """Return *wanted*, or the first of `-2`, `-3` … that is free. Pure."""
    used = RESERVED | set(taken)
    suffixes = chain([""], (f"-{number}" for number in count(2)))
    named = (wanted[: _MAX_SLUG - len(suffix)] + suffix for suffix in suffixes)
    return next(slug for slug in named if slug not in used)


def _compile(conn: Connection, *, acting: Acting, text: str, lists: ModelLists) -> Compiled:
    owner = _require_parent(conn, acting)
    parent = find_parent(conn, acting.workflow_id, acting.tool_id)
    caller = None if parent is None else find_caller(conn, acting.workflow_id, parent.node_id)
    catalogue = load_catalogue(conn, lists, caller)
    return compile_document(text, catalogue, source_finder(conn, owner))


def _store(
    conn: Connection, *, acting: Acting, compiled: Compiled, values: Mapping[str, Any]
) -> WorkflowRow:
    first = queries.find_workflow_of_call(conn, acting.key)
    if first is not None:
        return first
    owner = _require_parent(conn, acting)
    row = {
        **values,
        "owner_id": owner.user_id,
        "name": compiled.name,
        "slug": choose_slug(compiled.slug, queries.list_slugs(conn, compiled.slug[:_COMMON])),
        "description": compiled.description,
        "tags": list(compiled.tags),
        "max_execution_seconds": compiled.max_execution_seconds,
        "forked_from_id": _find_id(conn, compiled.forked_from),
    }
    workflow_id = queries.insert_workflow(conn, row)
    for node in compiled.nodes:
        fields = msgspec.structs.asdict(node)
        del fields["id"]
        check_references(conn, owner, fields, fields["config"])
        insert_node(conn, workflow_id, {**fields, "updated_at": values["updated_at"]})
    for edge in compiled.edges:
        insert_edge(conn, workflow_id, edge)
    made = queries.find_workflow_by_id(conn, workflow_id)
    if made is None:
        raise LookupError(f"workflow {workflow_id} vanished inside its own unit")
    return made


def _find_id(conn: Connection, slug: str | None) -> int | None:
    row = None if slug is None else queries.find_workflow(conn, slug)
    return None if row is None else row.id


def _require_parent(conn: Connection, acting: Acting) -> Principal:
    if queries.find_workflow_by_id(conn, acting.workflow_id) is None:
        raise NotFound(NO_PARENT)
    return get_acting(conn, acting)
