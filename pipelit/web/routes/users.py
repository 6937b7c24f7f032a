"""Accounts and their keys over HTTP: one's own, and everybody's. Contract: beyond.md §7–8.

Handlers only translate: the rules are `pipelit.services.users`'s and `…user_keys`'s.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from pipelit.services import user_keys as key_rules
from pipelit.services import users as rules
from pipelit.services.principal import Role
from pipelit.services.sessions import SESSION_KEY
from pipelit.services.user_keys import ApiKey, NewApiKey, UserKeysService
from pipelit.services.users import User, UsersService
from pipelit.web.call import Call
from pipelit.web.models import Instant, ListQuery, RequestModel, changes, problem
from pipelit.web.responses import Page
from pipelit.web.routes.auth import NewUsername
from pipelit.web.routing import Auth, Example, Refuses, Route


def _check_key_name(value: str) -> str:
    if not value.strip():
        raise problem("must not be blank")
    if value == SESSION_KEY:
        raise problem("is reserved")
    return value


NewPassword = Annotated[str, Field(min_length=8, max_length=1024)]
PersonalName = Annotated[str, Field(max_length=150)]
KeyName = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_check_key_name)]


class ChangeMe(RequestModel):
    """What to change of one's own account; null means unchanged."""

    password: NewPassword | None = Field(default=None, repr=False)
    first_name: PersonalName | None = None
    last_name: PersonalName | None = None


class ChangeUser(ChangeMe):
    """What to change of an account; null means unchanged."""

    role: Role | None = None
    is_active: bool | None = None


class CreateUser(RequestModel):
    """A new human account."""

    username: NewUsername
    password: NewPassword = Field(repr=False)
    role: Role = "normal"
    first_name: PersonalName = ""
    last_name: PersonalName = ""


class CreateKey(RequestModel):
    """A new key. `session` is reserved for logins; names may repeat."""

    name: KeyName
    expires_at: Instant | None = None


async def get_me(call: Call) -> User:
    """Return the caller's account."""
    return await call.service(UsersService).get(call.principal.user_id)


async def change_me(call: Call[ChangeMe]) -> User:
    """Change the caller's account."""
    return await call.service(UsersService).change(
        call.principal, call.principal.user_id, changes(call.body)
    )


async def list_my_keys(call: Call) -> Sequence[ApiKey]:
    """List the caller's keys."""
    return await call.service(UserKeysService).list_keys(call.principal.user_id)


async def create_my_key(call: Call[CreateKey]) -> NewApiKey:
    """Make a key for the caller."""
    return await call.service(UserKeysService).create(
        call.principal.user_id, name=call.body.name, expires_at=call.body.expires_at
    )


async def revoke_my_key(call: Call) -> None:
    """Revoke one of the caller's keys."""
    await call.service(UserKeysService).revoke(call.principal.user_id, call.path.number("key_id"))


async def browse(call: Call[None, ListQuery]) -> Page[User]:
    """List all accounts."""
    items, total = await call.service(UsersService).browse(
        limit=call.query.limit, offset=call.query.offset
    )
    return Page(items=items, total=total)


async def create(call: Call[CreateUser]) -> User:
    """Make a human account."""
    body = call.body
    return await call.service(UsersService).create(
        username=body.username,
        password=body.password,
        role=body.role,
        first_name=body.first_name,
        last_name=body.last_name,
    )


async def get(call: Call) -> User:
    """Return one account."""
    return await call.service(UsersService).get(call.path.number("user_id"))


async def change(call: Call[ChangeUser]) -> User:
    """Change one account."""
    return await call.service(UsersService).change(
        call.principal, call.path.number("user_id"), changes(call.body)
    )


async def disable(call: Call) -> None:
    """Disable one account."""
    await call.service(UsersService).disable(call.path.number("user_id"))


async def list_keys(call: Call) -> Sequence[ApiKey]:
    """List the keys of one account."""
    return await call.service(UserKeysService).list_keys(call.path.number("user_id"))


async def create_key(call: Call[CreateKey]) -> NewApiKey:
    """Make a key for one account."""
    return await call.service(UserKeysService).create(
        call.path.number("user_id"), name=call.body.name, expires_at=call.body.expires_at
    )


async def revoke_key(call: Call) -> None:
    """Revoke a key of one account."""
    await call.service(UserKeysService).revoke(
        call.path.number("user_id"), call.path.number("key_id")
    )


_NO_USER = Refuses(404, rules.NOT_FOUND, "no such user")
_NO_KEY = Refuses(404, key_rules.NO_KEY, "the user has no such key")
_NOT_HUMAN = Refuses(
    409, rules.NOT_HUMAN, "an agent user or gateway contact gets no password and no admin role"
)
_KEY_REFUSALS = (
    Refuses(400, key_rules.IN_THE_PAST, "the key would have expired already"),
    Refuses(409, key_rules.TOO_MANY, "the user has 100 active keys"),
)
_SESSIONS_END = "A new password revokes the user's `session` keys but the one that asks."

_USER = {
    "id": 2,
    "username": "olga",
    "role": "normal",
    "first_name": "Olga",
    "last_name": "",
    "created_at": "2026-02-03T15:00:00",
    "mfa_enabled": False,
    "key_count": 1,
    "is_active": True,
    "is_agent": False,
}
_KEY = {
    "id": 9,
    "name": "ci",
    "prefix": "u3Rk9_aQ",
    "created_at": "2026-02-03T15:10:00",
    "last_used_at": None,
    "expires_at": "2027-01-01T00:00:00",
    "is_active": True,
}
_NEW_KEY = {**_KEY, "key": "u3Rk9_aQ3v0b1mZk4u9Hn2T7cXy8LrWsE5aJdF6gKiM"}
_WANTED_KEY = {"name": "ci", "expires_at": "2027-01-01T00:00:00Z"}

ROUTES = (
    Route(
        "GET",
        "/users/me",
        get_me,
        auth=Auth.BEARER,
        section="users",
        summary="Return the caller's account.",
        response=User,
        examples=(Example(path="/api/v1/users/me", response=_USER),),
    ),
    Route(
        "PATCH",
        "/users/me",
        change_me,
        auth=Auth.BEARER,
        section="users",
        act="profile_change",
        summary="Change the caller's name or password.",
        description=_SESSIONS_END,
        body=ChangeMe,
        response=User,
        refuses=(_NOT_HUMAN,),
        examples=(Example(path="/api/v1/users/me", body={"first_name": "Olga"}, response=_USER),),
    ),
    Route(
        "GET",
        "/users/me/keys",
        list_my_keys,
        auth=Auth.BEARER,
        section="users",
        summary="List the caller's keys, newest first, revoked ones too.",
        response=list[ApiKey],
        examples=(Example(path="/api/v1/users/me/keys", response=[_KEY]),),
    ),
    Route(
        "POST",
        "/users/me/keys",
        create_my_key,
        auth=Auth.BEARER,
        section="users",
        act="key_create",
        summary="Make a key for the caller; the answer alone holds it.",
        body=CreateKey,
        status=201,
        response=NewApiKey,
        refuses=_KEY_REFUSALS,
        examples=(
            Example(path="/api/v1/users/me/keys", body=_WANTED_KEY, status=201, response=_NEW_KEY),
        ),
    ),
    Route(
        "DELETE",
        "/users/me/keys/{key_id:int}",
        revoke_my_key,
        auth=Auth.BEARER,
        section="users",
        act="key_revoke",
        summary="Revoke one of the caller's keys, for good.",
        status=204,
        refuses=(_NO_KEY,),
        examples=(Example(path="/api/v1/users/me/keys/9", status=204),),
    ),
    Route(
        "GET",
        "/users/",
        browse,
        auth=Auth.ADMIN,
        section="users",
        summary="List all accounts: humans, agent users and gateway contacts.",
        query=ListQuery,
        response=Page[User],
        examples=(Example(path="/api/v1/users/", response={"items": [_USER], "total": 1}),),
    ),
    Route(
        "POST",
        "/users/",
        create,
        auth=Auth.ADMIN,
        section="users",
        act="user_create",
        summary="Make a human account.",
        body=CreateUser,
        status=201,
        response=User,
        refuses=(Refuses(409, rules.NAME_TAKEN, "also by a disabled user"),),
        examples=(
            Example(
                path="/api/v1/users/",
                body={"username": "olga", "password": "battery staple", "first_name": "Olga"},
                status=201,
                response={**_USER, "key_count": 0},
            ),
        ),
    ),
    Route(
        "GET",
        "/users/{user_id:int}",
        get,
        auth=Auth.ADMIN,
        section="users",
        summary="Return one account.",
        response=User,
        refuses=(_NO_USER,),
        examples=(Example(path="/api/v1/users/2", response=_USER),),
    ),
    Route(
        "PATCH",
        "/users/{user_id:int}",
        change,
        auth=Auth.ADMIN,
        section="users",
        act="user_change",
        summary="Change an account: role, password, name, or whether it is active.",
        description=f"{_SESSIONS_END} `is_active: false` revokes all keys of the user.",
        body=ChangeUser,
        response=User,
        refuses=(
            _NO_USER,
            Refuses(409, rules.LAST_ADMIN_STAYS_ADMIN, "no active admin would be left"),
            _NOT_HUMAN,
        ),
        examples=(
            Example(
                path="/api/v1/users/2", body={"role": "admin"}, response={**_USER, "role": "admin"}
            ),
        ),
    ),
    Route(
        "DELETE",
        "/users/{user_id:int}",
        disable,
        auth=Auth.ADMIN,
        section="users",
        act="user_disable",
        summary="Disable an account and revoke all its keys; what it owns stays.",
        status=204,
        refuses=(_NO_USER, Refuses(409, rules.LAST_ADMIN_STAYS, "no active admin would be left")),
        examples=(Example(path="/api/v1/users/2", status=204),),
    ),
    Route(
        "GET",
        "/users/{user_id:int}/keys",
        list_keys,
        auth=Auth.ADMIN,
        section="users",
        summary="List the keys of an account, newest first, revoked ones too.",
        response=list[ApiKey],
        refuses=(_NO_USER,),
        examples=(Example(path="/api/v1/users/2/keys", response=[_KEY]),),
    ),
    Route(
        "POST",
        "/users/{user_id:int}/keys",
        create_key,
        auth=Auth.ADMIN,
        section="users",
        act="key_create",
        summary="Make a key for an account; the answer alone holds it.",
        body=CreateKey,
        status=201,
        response=NewApiKey,
        refuses=(_NO_USER, *_KEY_REFUSALS),
        examples=(
            Example(path="/api/v1/users/2/keys", body=_WANTED_KEY, status=201, response=_NEW_KEY),
        ),
    ),
    Route(
        "DELETE",
        "/users/{user_id:int}/keys/{key_id:int}",
        revoke_key,
        auth=Auth.ADMIN,
        section="users",
        act="key_revoke",
        summary="Revoke a key of an account, for good.",
        status=204,
        refuses=(_NO_KEY,),
        examples=(Example(path="/api/v1/users/2/keys/9", status=204),),
    ),
)
