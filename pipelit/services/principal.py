"""Who is asking."""

from typing import Literal

import msgspec

Role = Literal["admin", "normal"]


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The authenticated caller of one request or one WebSocket."""

    user_id: int
    username: str
    role: Role
    """`normal` for every agent user, whoever created it."""
    key_id: int
    """The API key presented; its revocation ends what was opened with it."""
    is_agent: bool = False
    acts_for: int | None = None
    """The user whose access an agent user shares, as a normal user; None for people."""

    @property
    def is_admin(self) -> bool:
        """Whether the caller sees and changes everything."""
        return self.role == "admin" and not self.is_agent
