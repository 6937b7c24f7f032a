"""The table of roles and visibility, row by row. Contract: README.md §9."""

import pytest

from pipelit.services import visibility
from pipelit.services.principal import Principal

OWNER = Principal(user_id=2, username="olga", role="normal", key_id=1)
OTHER = Principal(user_id=3, username="otto", role="normal", key_id=2)
ADMIN = Principal(user_id=1, username="ada", role="admin", key_id=3)
AGENT = Principal(user_id=9, username="agent_x", role="normal", key_id=4, is_agent=True, acts_for=2)
ADMINS_AGENT = Principal(
    user_id=8, username="agent_y", role="normal", key_id=5, is_agent=True, acts_for=1
)


@pytest.mark.parametrize(
    ("principal", "private", "public"),
    [
        (OWNER, True, True),
        (OTHER, False, True),
        (ADMIN, True, True),
        (AGENT, True, True),
        (ADMINS_AGENT, False, True),
    ],
)
def test_a_workflow_is_read_and_run_by_its_owner_or_everybody_if_public(
    principal: Principal, private: bool, public: bool
) -> None:
    """Public workflows are read and run by all; private ones by owner, its agents and admins."""
    for rule in (visibility.can_read_workflow, visibility.can_run_workflow):
        assert rule(principal, 2, False) is private
        assert rule(principal, 2, True) is public


def test_a_public_workflow_is_changed_by_its_owner_only() -> None:
    """`is_public` gives nobody the right to change."""
    assert visibility.can_change_workflow(OWNER, 2)
    assert visibility.can_change_workflow(AGENT, 2)
    assert visibility.can_change_workflow(ADMIN, 2)
    assert not visibility.can_change_workflow(OTHER, 2)
    assert not visibility.can_change_workflow(ADMINS_AGENT, 2)


def test_an_execution_is_seen_by_the_workflows_owner_and_by_who_started_it() -> None:
    """Who starts a public workflow of another sees that run, and only that one."""
    assert visibility.can_see_execution(OWNER, 2, 3)
    assert visibility.can_see_execution(OTHER, 2, 3)
    assert visibility.can_see_execution(ADMIN, 2, None)
    assert not visibility.can_see_execution(OTHER, 2, None)
    assert not visibility.can_see_execution(OTHER, 2, 4)


def test_a_credential_is_changed_by_its_creator_and_admins() -> None:
    """A credential whose creator is gone belongs to the admins."""
    assert visibility.can_change_credential(OWNER, 2)
    assert visibility.can_change_credential(ADMIN, None)
    assert not visibility.can_change_credential(OTHER, 2)
    assert not visibility.can_change_credential(OWNER, None)


def test_schedules_and_workspaces_follow_their_owner() -> None:
    """What hangs on a workflow is its owner's; a workspace is its owner's."""
    for rule in (visibility.can_see_schedule, visibility.can_use_workspace):
        assert rule(OWNER, 2)
        assert rule(AGENT, 2)
        assert not rule(OTHER, 2)


def test_an_agent_lists_its_own_and_its_creators_resources() -> None:
    """An admin lists everybody's; an agent never does, even if an admin made it."""
    assert visibility.owners_in_scope(ADMIN) is None
    assert visibility.owners_in_scope(OWNER) == (2,)
    assert visibility.owners_in_scope(AGENT) == (9, 2)
    assert visibility.owners_in_scope(ADMINS_AGENT) == (8, 1)


def test_an_agent_is_no_admin_whatever_its_row_says() -> None:
    """Admin powers never pass to an agent user."""
    odd = Principal(user_id=9, username="agent_x", role="admin", key_id=4, is_agent=True)

    assert not odd.is_admin
