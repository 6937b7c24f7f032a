"""Credentials over HTTP. Contract: credentials.md.

Handlers only translate: the rules are `pipelit.services.credentials`'s.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails

from pipelit.services.credential_detail import CredentialType, find_problems
from pipelit.services.credentials import (
    Credential,
    CredentialModel,
    CredentialsService,
    CredentialTest,
)
from pipelit.web.call import Call
from pipelit.web.models import (
    BatchIds,
    FreeObject,
    ListQuery,
    Name,
    RequestModel,
    changes,
    problem,
)
from pipelit.web.responses import Page
from pipelit.web.routing import Auth, Example, Refuses, Route

Detail = Annotated[
    FreeObject | None,
    Field(repr=False, description="Fields of the credential's type; unknown ones are ignored."),
]


class CreateCredential(RequestModel):
    """A new credential. `credential_type` decides what `detail` holds, for ever."""

    name: Name
    credential_type: CredentialType
    detail: Detail = None

    @field_validator("detail")
    @classmethod
    def _check_detail(cls, detail: Detail, info: ValidationInfo) -> Detail:
        kind = info.data.get("credential_type")
        # Without a valid type nobody knows the fields; the type's own problem is reported.
        if kind is None or detail is None:
            return detail
        found = [
            InitErrorDetails(type=problem(item.message), loc=item.path, input=detail)
            for item in find_problems(kind, detail)
        ]
        if found:
            raise ValidationError.from_exception_data("detail", found, hide_input=True)
        return detail


class ChangeCredential(RequestModel):
    """What to change. A secret sent back as shown stays as it is; an empty text clears it."""

    name: Name = ""
    detail: Detail = None


class DeleteCredentials(RequestModel):
    """Ids to delete."""

    ids: BatchIds


async def browse(call: Call[None, ListQuery]) -> Page[Credential]:
    """List all credentials, masked."""
    items, total = await call.service(CredentialsService).browse(
        limit=call.query.limit, offset=call.query.offset
    )
    return Page(items=items, total=total)


async def create(call: Call[CreateCredential]) -> Credential:
    """Store a credential of the caller."""
    return await call.service(CredentialsService).create(
        call.principal,
        name=call.body.name,
        credential_type=call.body.credential_type,
        detail=call.body.detail or {},
    )


async def get(call: Call) -> Credential:
    """Return one credential, masked."""
    return await call.service(CredentialsService).get(call.path.number("credential_id"))


async def change(call: Call[ChangeCredential]) -> Credential:
    """Change name and fields."""
    sent: dict[str, Any] = changes(call.body)
    return await call.service(CredentialsService).change(
        call.principal, call.path.number("credential_id"), **sent
    )


async def delete(call: Call) -> None:
    """Delete one credential."""
    await call.service(CredentialsService).delete(call.principal, call.path.number("credential_id"))


async def delete_many(call: Call[DeleteCredentials]) -> None:
    """Delete those of the ids that the caller may delete."""
    await call.service(CredentialsService).delete_many(call.principal, call.body.ids)


async def test(call: Call) -> CredentialTest:
    """Try the credential at its provider."""
    return await call.service(CredentialsService).test(call.path.number("credential_id"))


async def list_models(call: Call) -> Sequence[CredentialModel]:
    """Ask the provider for its models."""
    return await call.service(CredentialsService).list_models(call.path.number("credential_id"))


async def activate(call: Call) -> dict[str, Any]:
    """Activate a credential at the message gateway."""
    return await _set_active(call, active=True)


async def deactivate(call: Call) -> dict[str, Any]:
    """Deactivate a credential at the message gateway."""
    return await _set_active(call, active=False)


async def _set_active(call: Call, *, active: bool) -> dict[str, Any]:
    return await call.service(CredentialsService).set_active(
        call.principal, call.path.number("credential_id"), active=active
    )


_NOT_FOUND = Refuses(404, "Credential not found.", "no such credential")
_NOT_AN_LLM = Refuses(404, "LLM credential not found.", "no such credential of type `llm`")
_NOT_A_GATEWAY = Refuses(
    404, "Gateway credential not found.", "no such credential of type `gateway`"
)
_GATEWAY = (
    Refuses(502, "Gateway API error <status>: <message>", "the message gateway refused"),
    Refuses(502, "Gateway unavailable.", "the message gateway does not answer"),
)
_NOT_YOURS = Refuses(
    403,
    "Only the creator or an admin can modify this credential.",
    "somebody else made it and the caller is no admin",
)

_SHOWN = {
    "id": 4,
    "name": "Local vLLM",
    "credential_type": "llm",
    "detail": {
        "provider_type": "openai_compatible",
        "api_key": "vl-9****4b08",
        "base_url": "http://10.0.0.8:8001/v1/",
        "organization_id": "",
        "custom_headers": {"X-Team": "ops", "X-Api-Token": "****"},
    },
    "created_at": "2026-02-03T11:00:00.500000",
    "updated_at": "2026-02-03T11:00:00.500000",
}

ROUTES = (
    Route(
        "GET",
        "/credentials/",
        browse,
        auth=Auth.BEARER,
        section="credentials",
        summary="List all credentials, secrets masked.",
        query=ListQuery,
        response=Page[Credential],
        examples=(Example(path="/api/v1/credentials/", response={"items": [_SHOWN], "total": 1}),),
    ),
    Route(
        "POST",
        "/credentials/",
        create,
        auth=Auth.BEARER,
        section="credentials",
        act="credential_create",
        summary="Store a credential; its secrets are encrypted.",
        body=CreateCredential,
        status=201,
        response=Credential,
        refuses=_GATEWAY,
        examples=(
            Example(
                path="/api/v1/credentials/",
                body={
                    "name": "Local vLLM",
                    "credential_type": "llm",
                    "detail": {
                        "api_key": "vl-92ac77d0e1f54b08",
                        "base_url": "http://10.0.0.8:8001/v1/",
                        "custom_headers": {"X-Team": "ops", "X-Api-Token": "t-1234"},
                    },
                },
                status=201,
                response=_SHOWN,
            ),
        ),
    ),
    Route(
        "POST",
        "/credentials/batch-delete/",
        delete_many,
        auth=Auth.BEARER,
        section="credentials",
        act="credential_delete",
        summary="Delete several credentials; those the caller may not delete are skipped.",
        body=DeleteCredentials,
        status=204,
        refuses=(
            Refuses(
                502,
                "Failed to delete gateway credentials: <ids>. Database unchanged.",
                "the message gateway did not remove some",
            ),
        ),
        examples=(
            Example(path="/api/v1/credentials/batch-delete/", body={"ids": [3, 4]}, status=204),
        ),
    ),
    Route(
        "GET",
        "/credentials/{credential_id:int}/",
        get,
        auth=Auth.BEARER,
        section="credentials",
        act="credential_read",
        summary="Return one credential, secrets masked.",
        response=Credential,
        refuses=(_NOT_FOUND,),
        examples=(Example(path="/api/v1/credentials/4/", response=_SHOWN),),
    ),
    Route(
        "PATCH",
        "/credentials/{credential_id:int}/",
        change,
        auth=Auth.BEARER,
        section="credentials",
        act="credential_change",
        summary="Change a credential's name and single fields of its detail.",
        description=(
            "`detail` is merged field by field; `custom_headers` and `config` are replaced whole. "
            "If somebody other than the creator changes scheme, host or port of `base_url` without "
            "sending `api_key`, the stored key is cleared."
        ),
        body=ChangeCredential,
        response=Credential,
        refuses=(_NOT_FOUND, _NOT_YOURS, *_GATEWAY),
        examples=(
            Example(
                path="/api/v1/credentials/4/",
                body={"name": "vLLM", "detail": {"api_key": "vl-9****4b08"}},
                response={**_SHOWN, "name": "vLLM", "updated_at": "2026-02-03T11:05:00"},
            ),
        ),
    ),
    Route(
        "DELETE",
        "/credentials/{credential_id:int}/",
        delete,
        auth=Auth.BEARER,
        section="credentials",
        act="credential_delete",
        summary="Delete a credential; nodes that use it lose the reference.",
        status=204,
        refuses=(_NOT_FOUND, _NOT_YOURS, *_GATEWAY),
        examples=(Example(path="/api/v1/credentials/4/", status=204),),
    ),
    Route(
        "POST",
        "/credentials/{credential_id:int}/test/",
        test,
        auth=Auth.BEARER,
        section="credentials",
        act="credential_use",
        summary="Try a credential of type `llm` at its provider; nothing is stored.",
        response=CredentialTest,
        refuses=(_NOT_AN_LLM,),
        examples=(
            Example(
                path="/api/v1/credentials/4/test/",
                response={"ok": False, "error": "Could not connect to the provider"},
            ),
        ),
    ),
    Route(
        "GET",
        "/credentials/{credential_id:int}/models/",
        list_models,
        auth=Auth.BEARER,
        section="credentials",
        act="credential_use",
        summary="List the models of a credential's provider; empty when it does not answer.",
        response=list[CredentialModel],
        refuses=(_NOT_AN_LLM,),
        examples=(
            Example(
                path="/api/v1/credentials/4/models/",
                response=[{"id": "demo-1", "name": "demo-1"}],
            ),
        ),
    ),
    *(
        Route(
            "POST",
            f"/credentials/{{credential_id:int}}/{word}/",
            handler,
            auth=Auth.BEARER,
            section="credentials",
            act="credential_change",
            summary=f"{word.capitalize()} a credential at the message gateway.",
            description="The gateway's answer is passed on.",
            response=dict[str, Any],
            refuses=(_NOT_A_GATEWAY, _NOT_YOURS, *_GATEWAY),
            examples=(
                Example(
                    path=f"/api/v1/credentials/7/{word}/",
                    response={"id": "shop-bot", "active": word == "activate"},
                ),
            ),
        )
        for word, handler in (("activate", activate), ("deactivate", deactivate))
    ),
)
