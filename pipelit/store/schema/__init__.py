"""Every table of the product, as SQLAlchemy Core metadata. One schema for SQLite and PostgreSQL.

Money is integer micro-dollars, instants are `UtcDateTime`, free objects are `Json`. Integer ids are
never reused (`sqlite_autoincrement`). What the tables mean: docs/reference/, section by section.
"""

from pipelit.store.schema.base import metadata
from pipelit.store.schema.canvas import edges, nodes, workflows
from pipelit.store.schema.installation import meta, servers
from pipelit.store.schema.memory import (
    agent_files,
    checkpoints,
    episodes,
    facts,
    memory_users,
    procedures,
    thread_messages,
)
from pipelit.store.schema.people import api_keys, audit_log, credentials, users, workspaces
from pipelit.store.schema.runs import (
    dispatches,
    execution_events,
    execution_logs,
    executions,
    idempotency_keys,
    journal,
    pending_tasks,
    run_checkpoints,
)
from pipelit.store.schema.timetable import schedule_fires, schedules
from pipelit.store.schema.work import epics, reservations, tasks

__all__ = [
    "agent_files",
    "api_keys",
    "audit_log",
    "checkpoints",
    "credentials",
    "dispatches",
    "edges",
    "epics",
    "episodes",
    "execution_events",
    "execution_logs",
    "executions",
    "facts",
    "idempotency_keys",
    "journal",
    "memory_users",
    "meta",
    "metadata",
    "nodes",
    "pending_tasks",
    "procedures",
    "reservations",
    "run_checkpoints",
    "schedule_fires",
    "schedules",
    "servers",
    "tasks",
    "thread_messages",
    "users",
    "workflows",
    "workspaces",
]
