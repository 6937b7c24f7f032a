"""`create_agent_user` and `get_totp_code`: an agent's own account.

The key is for the model only: logs, traces and memories show it masked.
Contract: node-types.md §8.1, §8.4.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from pipelit.engine.definition import NodeDef
from pipelit.engine.values import to_text
from pipelit.nodes.base import NodeServices, Tool
from pipelit.nodes.json_tools import Acting, json_tool
from pipelit.nodes.tool_limits import check_texts, text
from pipelit.nodes.tool_schema import tool_spec

_CREATE = tool_spec(
    "create_agent_user",
    "Get your API credentials; creates them on first use. Safe to repeat.",
    {"purpose": text("What the account is for", "")},
)
_TOTP = tool_spec(
    "get_totp_code",
    "Get the current one-time code of your agent account.",
    {"username": text("Agent account; empty = your own", "")},
)


class AgentAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account with its key, which stays out of `repr`."""

    username: str
    api_key: str
    purpose: str
    already_existed: bool

    def __repr__(self) -> str:
        return f"AgentAccount(username={self.username!r})"


class AgentAccounts(Protocol):
    """The accounts of the agents of a workflow's owner. Every method raises `Refusal`."""

    async def obtain(self, acting: Acting, purpose: str) -> AgentAccount:
        """Return the account of the agent the tool is attached to; make it if there is none."""

    async def one_time_code(self, acting: Acting, username: str) -> tuple[str, str]:
        """Return name and present code of an account; no name stands for the agent's own."""


def create_agent_user_tools(
    node: NodeDef,
    config: dict[str, Any],
    _services: NodeServices,
    *,
    accounts: AgentAccounts,
    base_url: str,
) -> tuple[Tool, ...]:
    """Offer `create_agent_user`; *base_url* is where the API is, if the node does not say."""
    shown_url = to_text((config.get("extra_config") or {}).get("api_base_url")) or base_url

    async def create(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        check_texts(arguments)
        account = await accounts.obtain(acting, arguments["purpose"].strip())
        return {
            "username": account.username,
            "api_key": account.api_key,
            "api_base_url": shown_url,
            "purpose": account.purpose,
            "already_existed": account.already_existed,
        }

    return (json_tool(_CREATE, node, create),)


def get_totp_code_tools(
    node: NodeDef, _config: dict[str, Any], _services: NodeServices, *, accounts: AgentAccounts
) -> tuple[Tool, ...]:
    """Offer `get_totp_code`."""

    async def code(arguments: Mapping[str, Any], acting: Acting) -> Mapping[str, Any]:
        username, totp_code = await accounts.one_time_code(acting, arguments["username"].strip())
        return {"username": username, "totp_code": totp_code}

    return (json_tool(_TOTP, node, code),)
