"""Services of what stands beside workflows: epics, memory, workspaces, settings."""

import os
from functools import partial

from pipelit import logs
from pipelit.actors.turns import Turns
from pipelit.assembly.base import Base
from pipelit.services.directories import WorkspaceDirectories
from pipelit.services.environment import look
from pipelit.services.epics import EpicsService, LinkedExecutions
from pipelit.services.memory import MemoryService
from pipelit.services.settings_service import SettingsService
from pipelit.services.tasks import TasksService
from pipelit.services.workspaces import WorkspacesService


def build_resources(base: Base, turns: Turns, executions: LinkedExecutions) -> tuple[object, ...]:
    """Build the services; *turns* is shared with whoever else tells about epics."""
    settings, store, world = base.settings, base.opened.store, base.world
    directories = WorkspaceDirectories(settings.data_dir / "workspaces")
    return (
        EpicsService(store, turns, world.clock, world.ids, executions=executions),
        TasksService(store, turns, world.clock, world.ids),
        MemoryService(store),
        WorkspacesService(store, world.clock, directories),
        SettingsService(
            store, settings, base.live, look=partial(look, os.environ), set_level=logs.set_level
        ),
    )
