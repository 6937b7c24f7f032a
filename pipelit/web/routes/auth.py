"""Setup, login and the caller's own account. Contract: auth.md.

Handlers only translate: the rules are `pipelit.services.auth`'s.
"""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

from pipelit.services.auth import AuthService, Me, SetupStatus, TokenResponse
from pipelit.web.call import Call
from pipelit.web.models import RequestModel, problem
from pipelit.web.routing import Auth, Example, Refuses, Route

_TOO_MANY = Refuses(
    429,
    "Too many login attempts. Please wait a minute.",
    "more than 10 failures of this username from this address within 60 s",
)


def _check_new_username(value: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise problem("must be valid text")
    if value != value.strip():
        raise problem(r"must match ^\S(.*\S)?$")
    return value


_CONTROL = r"\u0000-\u001f\u007f-\u009f"
_NEW_USERNAME = rf"^[^\s{_CONTROL}]([^{_CONTROL}]*[^\s{_CONTROL}])?$"
Username = Annotated[str, Field(min_length=1, max_length=150)]
NewUsername = Annotated[
    Username,
    AfterValidator(_check_new_username),
    Field(json_schema_extra={"pattern": _NEW_USERNAME}),
]
Password = Annotated[str, Field(min_length=1, max_length=1024, repr=False)]


class TokenRequest(RequestModel):
    """Username and password of a person."""

    username: Username
    password: Password


class SetupRequest(RequestModel):
    """The first user: no control characters, no white space around the name."""

    username: NewUsername
    password: Password


async def get_setup_status(call: Call) -> SetupStatus:
    """Tell whether the first user is still to be made."""
    return await call.service(AuthService).get_setup_status()


async def setup(call: Call[SetupRequest]) -> TokenResponse:
    """Make the first user and give its key."""
    return await call.service(AuthService).setup(call.body.username, call.body.password)


async def create_token(call: Call[TokenRequest]) -> TokenResponse:
    """Give a session key for a password."""
    return await call.service(AuthService).login(
        call.body.username, call.body.password, peer=call.peer
    )


async def get_me(call: Call) -> Me:
    """Describe the caller."""
    return await call.service(AuthService).get_me(call.principal)


_LOGIN = {"username": "maria", "password": "correct horse"}
_KEY = "pQ3v0b1mZk4u9Hn2T7cXy8LrWsE5aJdF6gKiMoNqRtU"

ROUTES = (
    Route(
        "GET",
        "/auth/setup-status/",
        get_setup_status,
        auth=Auth.NONE,
        section="auth",
        summary="Tell whether the first user is still to be made.",
        response=SetupStatus,
        examples=(Example(path="/api/v1/auth/setup-status/", response={"needs_setup": True}),),
    ),
    Route(
        "POST",
        "/auth/setup/",
        setup,
        auth=Auth.NONE,
        section="auth",
        act="setup",
        summary="Make the first user, an admin, and give its API key.",
        description="Works once. Also makes the workspace `default`.",
        body=SetupRequest,
        response=TokenResponse,
        refuses=(Refuses(409, "Setup already completed.", "somebody exists already"),),
        examples=(
            Example(
                path="/api/v1/auth/setup/",
                body=_LOGIN,
                response={"key": _KEY, "requires_mfa": False},
            ),
            Example(
                path="/api/v1/auth/setup/",
                body={"username": "eve", "password": "x"},
                status=409,
                response={"detail": "Setup already completed."},
            ),
        ),
    ),
    Route(
        "POST",
        "/auth/token/",
        create_token,
        auth=Auth.NONE,
        section="auth",
        act="login",
        summary="Log in: give a new session key for a password.",
        description=(
            "A user keeps the 10 newest session keys; older ones are revoked. With MFA switched on "
            'the answer is `requires_mfa: true` and `key: ""`.'
        ),
        body=TokenRequest,
        response=TokenResponse,
        refuses=(
            Refuses(401, "Invalid credentials.", "whatever is wrong with them"),
            _TOO_MANY,
        ),
        examples=(
            Example(
                path="/api/v1/auth/token/",
                body=_LOGIN,
                response={"key": "", "requires_mfa": True},
            ),
        ),
    ),
    Route(
        "GET",
        "/auth/me/",
        get_me,
        auth=Auth.BEARER,
        section="auth",
        summary="Describe the caller's account.",
        response=Me,
        examples=(
            Example(
                path="/api/v1/auth/me/",
                response={"username": "maria", "mfa_enabled": False},
            ),
        ),
    ),
)
