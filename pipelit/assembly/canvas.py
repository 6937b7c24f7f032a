"""What people draw and set going on a canvas: workflows, nodes, edges, schedules."""

from pipelit.actors import paths
from pipelit.actors.runtime import System
from pipelit.assembly.base import Base
from pipelit.services.canvas import Canvas
from pipelit.services.edges import EdgesService
from pipelit.services.node_schedules import NodeSchedulesService
from pipelit.services.nodes import NodesService
from pipelit.services.schedule_actors import ScheduleActors
from pipelit.services.schedules import SchedulesService
from pipelit.services.workflows import ExecutionsPort, WorkflowsService


def build_canvas(
    base: Base, system: System, canvas: Canvas, executions: ExecutionsPort
) -> tuple[object, ...]:
    """Build the services of these sections."""
    clock, ids, owner = base.world.clock, base.world.ids, base.owner
    actors = ScheduleActors(system.family(paths.SCHEDULES).ref)
    return (
        WorkflowsService(
            canvas,
            clock,
            executions=executions,
            schedules=actors,
            default_limit=lambda: base.settings.max_execution_seconds,
            model_lists=base.model_lists,
        ),
        NodesService(canvas, clock, ids, schedules=actors),
        EdgesService(canvas),
        NodeSchedulesService(canvas, clock, ids, owner=owner, actors=actors),
        SchedulesService(base.opened.store, clock, ids, owner=owner, actors=actors),
    )
