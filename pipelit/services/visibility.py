"""Who may see and change what, as pure rules. Contract: README.md §9.

An agent user has, besides its own resources, the access its creator has as a normal user; it never
has admin powers, even when its creator does.
"""

from collections.abc import Sequence

from pipelit.services.principal import Principal


def identities(principal: Principal) -> tuple[int, ...]:
    """Return the ids of the users as whom *principal* acts: itself, then an agent's creator."""
    if principal.acts_for is None:
        return (principal.user_id,)
    return (principal.user_id, principal.acts_for)


def owners_in_scope(principal: Principal) -> Sequence[int] | None:
    """Return the owners whose resources *principal* may list; None stands for everybody."""
    return None if principal.is_admin else identities(principal)


def owns(principal: Principal, owner_id: int | None) -> bool:
    """Whether the resource belongs to *principal* or to the user it acts for."""
    return owner_id is not None and owner_id in identities(principal)


def can_read_workflow(principal: Principal, owner_id: int, is_public: bool) -> bool:
    """Whether *principal* may read the workflow by slug, with its nodes and edges."""
    return is_public or can_change_workflow(principal, owner_id)


def can_run_workflow(principal: Principal, owner_id: int, is_public: bool) -> bool:
    """Whether *principal* may chat with the workflow or start it by hand."""
    return can_read_workflow(principal, owner_id, is_public)


def can_change_workflow(principal: Principal, owner_id: int) -> bool:
    """Whether *principal* may change the workflow, its nodes and its edges."""
    return principal.is_admin or owns(principal, owner_id)


def can_see_execution(principal: Principal, workflow_owner_id: int, started_by: int | None) -> bool:
    """Whether *principal* may see, cancel, delete, resume and retry the execution."""
    return principal.is_admin or owns(principal, workflow_owner_id) or owns(principal, started_by)


def can_see_schedule(principal: Principal, workflow_owner_id: int) -> bool:
    """Whether *principal* may see and change schedules of the workflow."""
    return can_change_workflow(principal, workflow_owner_id)


def can_change_credential(principal: Principal, created_by: int | None) -> bool:
    """Whether *principal* may change or delete the credential. Everybody may see and use it."""
    return principal.is_admin or owns(principal, created_by)


def can_use_workspace(principal: Principal, owner_id: int | None) -> bool:
    """Whether *principal* may see and change the workspace."""
    return principal.is_admin or owns(principal, owner_id)
