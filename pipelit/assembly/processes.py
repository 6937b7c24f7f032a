"""What nodes that run processes are built with."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pipelit.assembly.base import Base
from pipelit.nodes.base import Component
from pipelit.nodes.code import CodeRunner, load_driver
from pipelit.nodes.code_execute import code_execute
from pipelit.nodes.command import run_command
from pipelit.nodes.deep_agent import DeepParts
from pipelit.nodes.sandbox import Sandbox
from pipelit.nodes.sandbox_config import SandboxParts
from pipelit.services.agent_files import StoredFiles
from pipelit.services.agent_lookup import AgentLookup
from pipelit.services.credentials import CredentialsService
from pipelit.services.directories import WorkspaceDirectories
from pipelit.services.sandbox_workspaces import SandboxWorkspaces
from pipelit.settings import Settings


def build_processes(base: Base, credentials: CredentialsService) -> SandboxParts:
    """Build the sandbox and what its nodes need beside it."""
    sandbox = Sandbox(
        build_workspaces(base, credentials).find,
        search_path=os.environ.get("PATH", os.defpath),
        skill_roots=skill_roots(base.settings),
    )
    return SandboxParts(sandbox=sandbox, find_parent=AgentLookup(base.opened.store).find_parent)


def build_workspaces(base: Base, credentials: CredentialsService) -> SandboxWorkspaces:
    """Build what finds the workspaces of nodes."""
    directories = WorkspaceDirectories(base.settings.data_dir / "workspaces")
    return SandboxWorkspaces(base.opened.store, directories, credentials.open_fields)


def build_deep_parts(
    base: Base, credentials: CredentialsService, processes: SandboxParts
) -> DeepParts:
    """Build what only deep agents need."""

    def open_store(workflow_id: int, user_key: str) -> StoredFiles:
        return StoredFiles(
            base.opened.store, base.world.clock, workflow_id=workflow_id, user_key=user_key
        )

    return DeepParts(
        search=base.pool,
        sandbox=processes.sandbox,
        find_place=build_workspaces(base, credentials).find_place,
        open_store=open_store,
    )


def build_process_components(processes: SandboxParts) -> Mapping[str, Component]:
    """Build the components that run processes."""
    return {
        "code": CodeRunner(processes.sandbox, load_driver()),
        "code_execute": partial(code_execute, parts=processes),
        "run_command": partial(run_command, parts=processes),
    }


def skill_roots(settings: Settings) -> tuple[Path, ...]:
    """Return the directories skills may lie in: the platform's, then the operator's."""
    return (settings.data_dir / "skills", *settings.skill_dirs)
