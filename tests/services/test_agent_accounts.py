"""The accounts of agents: whose they are, and who never gets one. Contract: node-types.md §8.1."""

import hashlib

import pyotp
import pytest
from sqlalchemy import delete, update

from pipelit.services.agent_accounts import username_of
from pipelit.services.authenticator import Authenticator
from pipelit.store.schema import api_keys, edges, users
from tests.kit.tools import ADA, OTHER, Bench, bench

__all__ = ["bench"]


async def test_an_agent_gets_an_account_once(bench: Bench, authenticator: Authenticator) -> None:
    """The second call returns the same key; the key works, without admin powers."""
    first = await bench.call("create_agent_user", purpose="Adjust own prompt")
    second = await bench.call("create_agent_user", purpose="other")
    (account,) = [row for row in await bench.rows(users) if row.kind == "agent"]
    principal = await authenticator.authenticate(first["api_key"])

    assert first == {
        "success": True,
        "username": "agent_w1_helper",
        "api_key": first["api_key"],
        "api_base_url": "http://here",
        "purpose": "Adjust own prompt",
        "already_existed": False,
    }
    assert second == {**first, "already_existed": True}
    assert (account.role, account.password_hash, account.created_by_id) == ("normal", None, ADA)
    assert (principal.username, principal.is_admin, principal.acts_for) == (
        "agent_w1_helper",
        False,
        ADA,
    )


async def test_neither_key_nor_secret_is_stored_in_clear(bench: Bench) -> None:
    """The key can be looked up by its hash only."""
    key = (await bench.call("create_agent_user"))["api_key"]
    (row,) = await bench.rows(api_keys)
    (account,) = [row for row in await bench.rows(users) if row.kind == "agent"]

    assert row.key_hash == hashlib.sha256(key.encode()).hexdigest()
    assert row.encrypted_key.startswith("enc:")
    assert key not in repr(row)
    assert account.totp_secret.startswith("enc:")
    assert account.purpose == "Agent-created user"


async def test_a_revoked_key_is_replaced(bench: Bench) -> None:
    key = (await bench.call("create_agent_user"))["api_key"]
    await bench.change(update(api_keys).values(is_active=False))

    again = await bench.call("create_agent_user")

    assert again["already_existed"] is True
    assert again["api_key"] != key


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"created_by_id": 2}, "Username 'agent_w1_helper' is already taken"),
        ({"created_by_id": None}, "Username 'agent_w1_helper' is already taken"),
        ({"kind": "human"}, "Username 'agent_w1_helper' is already taken"),
        ({"is_active": False}, "Agent user 'agent_w1_helper' is disabled"),
    ],
)
async def test_the_account_of_somebody_else_is_not_given(
    bench: Bench, values: dict[str, object], error: str
) -> None:
    """A workflow of another owner may have had this name, or an admin disabled the account."""
    await bench.call("create_agent_user")
    await bench.change(update(users).where(users.c.kind == "agent").values(**values))

    assert await bench.error("create_agent_user") == error
    assert await bench.error("get_totp_code") == "Agent user not found"


async def test_a_code_is_that_of_the_agent_s_secret(bench: Bench) -> None:
    """Of its own account, or of one it names."""
    await bench.call("create_agent_user")

    own = await bench.call("get_totp_code")
    named = await bench.call("get_totp_code", username="agent_w1_helper")

    assert own == {"success": True, "username": "agent_w1_helper", "totp_code": own["totp_code"]}
    assert own["totp_code"].isdigit()
    assert len(own["totp_code"]) == 6
    assert named == own


async def test_only_agents_of_the_same_owner_have_codes(bench: Bench) -> None:
    """Neither people nor agents of others, not even for the agent of an admin."""
    secret = pyotp.random_base32()
    await bench.call("create_agent_user", as_workflow=OTHER)
    await bench.change(update(users).where(users.c.id == ADA).values(totp_secret=secret))

    for username in ("ada", "agent_w2_helper", "nobody", ""):
        assert await bench.error("get_totp_code", username=username) == "Agent user not found"


async def test_an_account_without_a_secret_has_no_code(bench: Bench) -> None:
    await bench.call("create_agent_user")
    await bench.change(update(users).values(totp_secret=None))

    assert await bench.error("get_totp_code") == "No TOTP secret configured for this user"


async def test_a_tool_that_is_attached_to_nothing_names_the_account(bench: Bench) -> None:
    await bench.change(delete(edges))

    assert (await bench.call("create_agent_user"))["username"] == "agent_w1_tool"


async def test_without_its_workflow_a_tool_acts_for_nobody(bench: Bench) -> None:
    assert await bench.error("create_agent_user", as_workflow=99) == "Workflow not found"
    assert await bench.error("create_epic", as_workflow=99, title="x") == "Workflow not found"


async def test_nobody_acts_for_an_owner_who_is_disabled(bench: Bench) -> None:
    """Neither with the account it has nor with a new one, nor on what the owner has."""
    await bench.call("create_agent_user")
    await bench.change(update(users).where(users.c.id == ADA).values(is_active=False))
    refusal = "The account of the workflow's owner is disabled"

    assert await bench.error("create_agent_user") == refusal
    assert await bench.error("get_totp_code") == refusal
    assert await bench.error("create_epic", title="x") == refusal


async def test_nobody_acts_for_an_agent_of_somebody_who_is_disabled(bench: Bench) -> None:
    """It shares that user's access."""
    olga = users.c.username == "olga"
    await bench.change(update(users).where(olga).values(kind="agent", created_by_id=ADA))
    await bench.change(update(users).where(users.c.id == ADA).values(is_active=False))

    answer = await bench.call("create_agent_user", as_workflow=OTHER)

    assert answer["error"] == "The account of the workflow's owner is disabled"


def test_a_long_name_ends_in_a_hash() -> None:
    """Names are as long as those of people at most, and still one per agent."""
    long = username_of("s" * 200, "a")

    assert len(long) == 150
    assert long != username_of("s" * 200, "b")
    assert username_of("helper", "agent_ab12") == "agent_helper_agent_ab12"
