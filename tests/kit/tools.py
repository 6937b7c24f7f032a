"""Platform tools over a real store: called as a model calls them, answered as a model reads it.

Import the fixture where it is wanted: `from tests.kit.tools import bench`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from pipelit.actors.schedules import Begin
from pipelit.actors.turns import Subjects, Turns
from pipelit.clock import Ids
from pipelit.engine.definition import NodeDef
from pipelit.engine.specs import complete_config
from pipelit.nodes.agent_account import create_agent_user_tools, get_totp_code_tools
from pipelit.nodes.base import RunIdentity, Tool, ToolContext, ToolError
from pipelit.nodes.epic_tools import epic_tools
from pipelit.nodes.scheduler_tools import scheduler_tools
from pipelit.nodes.task_tools import task_tools
from pipelit.nodes.tool_arguments import ArgumentChecker
from pipelit.nodes.workflow_tools import workflow_create_tools, workflow_discover_tools
from pipelit.services.agent_accounts import StoredAgentAccounts
from pipelit.services.executions import ExecutionsService
from pipelit.services.model_lists import ModelLists
from pipelit.services.schedule_actors import ScheduleActors
from pipelit.services.schedules import SchedulesService
from pipelit.services.tasks import TasksService
from pipelit.services.tool_epics import OwnersEpics, OwnersTasks
from pipelit.services.tool_schedules import OwnersSchedules
from pipelit.services.workflow_builder import OwnersWorkflows
from pipelit.services.workflow_finder import WorkflowCatalogue
from pipelit.store import Store
from pipelit.store.queries.journal import Owner
from pipelit.store.schema import edges, executions, nodes, users, workflows
from pipelit.store.secrets import Secrets, new_key
from tests.nodes.calls import services
from tests.services.conftest import HandClock

ADA, OLGA = 1, 2
"""An admin, and a normal user."""
MAIN, OTHER = 1, 2
"""Ada's workflow with an agent and its tools, and Olga's."""


@dataclass
class Manager:
    """Ends executions at once."""

    store: Store
    cancelled: list[str] = field(default_factory=list)

    async def ask(self, message: Any, *, timeout: float) -> None:  # noqa: ASYNC109
        self.cancelled.append(message.execution_id)
        statement = update(executions).where(executions.c.id == message.execution_id)
        await self.store.write(lambda conn: conn.execute(statement.values(status="cancelled")))


@dataclass
class JobActor:
    """The actor of any job: it starts, unless it is told not to."""

    heard: list[Any] = field(default_factory=list)

    def tell(self, message: Any) -> None:
        self.heard.append(message)

    async def ask(self, message: Begin, *, timeout: float) -> None:  # noqa: ASYNC109
        self.heard.append(message)


@dataclass
class Bench:
    """The tools of an agent `helper` in a workflow of Ada's, or of Olga's."""

    store: Store
    clock: HandClock
    tools: dict[str, Tool]
    manager: Manager
    told: list[tuple[str, str]]
    """Channel and type of each event."""
    calls: int = 0

    async def call(
        self, name: str, /, *, as_workflow: int = MAIN, key: str | None = None, **arguments: Any
    ) -> Any:
        """Call a function; return what it answers, whether it failed or not."""
        self.calls += 1
        tool = self.tools[name]
        checked, problem = ArgumentChecker(name, tool.spec.parameters).check(arguments)
        assert problem is None, problem
        context = ToolContext(
            idempotency_key=key or f"e1:helper:0:{self.calls}",
            clock=self.clock,
            caller=RunIdentity(
                execution_id="e1",
                workflow_id=as_workflow,
                workflow_slug=f"w{as_workflow}",
                node_id="helper",
                iteration="0",
                attempt=0,
            ),
        )
        try:
            answer = json.loads(await tool.run(checked, context))
        except ToolError as failed:
            return json.loads(failed.told)
        assert answer["success"] is True
        return answer

    async def error(self, name: str, /, **arguments: Any) -> str:
        """Call a function that must fail; return why it did."""
        answer = await self.call(name, **arguments)
        assert answer["success"] is False, answer
        return str(answer["error"])

    async def execution(
        self, execution_id: str, workflow_id: int = MAIN, status: str = "running"
    ) -> str:
        """Store an execution."""
        now = self.clock.now()
        row = {
            "id": execution_id,
            "created_seq": hash(execution_id) % 2**40,
            "workflow_id": workflow_id,
            "thread_id": "t",
            "status": status,
            "source": "manual",
            "trigger": {},
            "limit_seconds": 60,
            "created_at": now,
            "last_activity_at": now,
        }
        await self.change(insert(executions).values(row))
        return execution_id

    async def change(self, statement: Any) -> None:
        """Change the store behind everybody's back."""
        await self.store.write(lambda conn: conn.execute(statement).rowcount)

    async def rows(self, table: Any) -> list[Any]:
        return await self.store.read(lambda conn: list(conn.execute(select(table))))


@pytest.fixture
async def bench(store: Store, clock: HandClock) -> Bench:
    await store.write(partial(_fill, now=clock.now()))
    ids, told = Ids.seeded(5), list[tuple[str, str]]()
    turns = Turns(store, lambda channel, kind, _: told.append((channel, kind)), Subjects())
    manager, job = Manager(store), JobActor()
    executions_service = ExecutionsService(store, None, manager=manager)
    schedules = SchedulesService(
        store, clock, ids, owner=Owner("server", 1), actors=ScheduleActors(lambda _: job)
    )
    accounts = StoredAgentAccounts(store, clock, ids, Secrets(new_key()))
    factories = (
        ("accounts", partial(create_agent_user_tools, base_url="http://here"), accounts),
        ("accounts", get_totp_code_tools, accounts),
        ("epics", epic_tools, OwnersEpics(store, turns, clock, ids, executions_service)),
        (
            "tasks",
            task_tools,
            OwnersTasks(store, TasksService(store, turns, clock, ids), executions_service),
        ),
        ("schedules", scheduler_tools, OwnersSchedules(store, schedules)),
        ("builder", workflow_create_tools, OwnersWorkflows(store, clock, ModelLists())),
        ("finder", workflow_discover_tools, WorkflowCatalogue(store)),
    )
    tool_node = NodeDef(id=9, node_id="tool", component_type="tool")
    offered: Iterable[Tool] = (
        tool
        for port, factory, service in factories
        for tool in factory(tool_node, {}, services(), **{port: service})
    )
    return Bench(store, clock, {tool.spec.name: tool for tool in offered}, manager, told)


def _fill(conn: Connection, now: Any) -> None:
    people = (("ada", "admin"), ("olga", "normal"))
    for number, (name, role) in enumerate(people, start=1):
        conn.execute(insert(users).values(id=number, username=name, role=role, created_at=now))
        row = {"id": number, "owner_id": number, "name": "w", "slug": f"w{number}"}
        conn.execute(insert(workflows).values(**row, created_at=now, updated_at=now))
        add_nodes(conn, number, {"helper": "agent", "tool": "whoami"}, now=now)
        add_edges(conn, number, ("tool", "helper", "tool"))


def add_nodes(conn: Connection, workflow_id: int, types: dict[str, str], *, now: Any) -> None:
    """Store nodes: `{node_id: component_type}`."""
    for node_id, component_type in types.items():
        conn.execute(
            insert(nodes).values(
                workflow_id=workflow_id,
                node_id=node_id,
                component_type=component_type,
                config=complete_config(component_type, {}),
                updated_at=now,
            )
        )


def add_edges(conn: Connection, workflow_id: int, *found: tuple[str, str, str]) -> None:
    """Store edges: source, target, label."""
    for source, target, label in found:
        conn.execute(
            insert(edges).values(
                workflow_id=workflow_id,
                source_node_id=source,
                target_node_id=target,
                edge_label=label,
            )
        )
