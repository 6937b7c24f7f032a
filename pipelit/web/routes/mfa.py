"""The second factor over HTTP. Contract: auth.md, MFA (TOTP).

Handlers only translate: the rules are `pipelit.services.mfa`'s.
"""

from typing import Annotated

from pydantic import Field

from pipelit.errors import Forbidden
from pipelit.services.auth import TokenResponse
from pipelit.services.mfa import MfaService, MfaSetup, MfaStatus
from pipelit.web.call import Call
from pipelit.web.models import RequestModel
from pipelit.web.place import is_here
from pipelit.web.routes.auth import Username
from pipelit.web.routing import Auth, Example, Refuses, Route

NOT_FROM_HERE = "MFA reset only allowed from localhost."

Code = Annotated[str, Field(pattern=r"^[0-9]{6}$", repr=False)]


class MfaCode(RequestModel):
    """A code of the authenticator app."""

    code: Code


class MfaLogin(RequestModel):
    """The second step of a login."""

    username: Username
    code: Code


async def setup(call: Call) -> MfaSetup:
    """Make a secret for the caller's app."""
    return await call.service(MfaService).setup(call.principal)


async def verify(call: Call[MfaCode]) -> MfaStatus:
    """Switch MFA on."""
    return await call.service(MfaService).verify(call.principal, call.body.code)


async def disable(call: Call[MfaCode]) -> MfaStatus:
    """Switch MFA off with a code."""
    return await call.service(MfaService).disable(call.principal, call.body.code)


async def get_status(call: Call) -> MfaStatus:
    """Tell whether MFA is on."""
    return await call.service(MfaService).get_status(call.principal)


async def verify_login(call: Call[MfaLogin]) -> TokenResponse:
    """Give a session key for a code."""
    return await call.service(MfaService).verify_login(call.body.username, call.body.code)


async def reset(call: Call) -> MfaStatus:
    """Switch MFA off for who sits at this machine."""
    if not is_here(call.peer, call.raw_headers):
        raise Forbidden(NOT_FROM_HERE)
    return await call.service(MfaService).reset(call.principal)


_LIMITS = (
    Refuses(
        429,
        "Too many MFA attempts. Please wait a minute.",
        "5 codes of this user were checked within 60 s",
    ),
    Refuses(
        429,
        "Account temporarily locked due to too many failed attempts. Try again later.",
        "the last 10 codes were wrong; for 900 s",
    ),
)
_ALREADY_ON = Refuses(400, "MFA is already enabled.", "it is switched on")
_WRONG_CODE = Refuses(400, "Invalid TOTP code.", "the code is wrong or was used")

_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"

ROUTES = (
    Route(
        "POST",
        "/auth/mfa/setup/",
        setup,
        auth=Auth.BEARER,
        section="auth",
        act="mfa_setup",
        summary="Make a secret for an authenticator app.",
        description="MFA stays off until `verify`. A secret not yet verified is replaced.",
        response=MfaSetup,
        refuses=(_ALREADY_ON,),
        examples=(
            Example(
                path="/api/v1/auth/mfa/setup/",
                response={
                    "secret": _SECRET,
                    "provisioning_uri": (
                        f"otpauth://totp/Pipelit:maria?secret={_SECRET}&issuer=Pipelit"
                    ),
                },
            ),
        ),
    ),
    Route(
        "POST",
        "/auth/mfa/verify/",
        verify,
        auth=Auth.BEARER,
        section="auth",
        act="mfa_enable",
        summary="Switch MFA on with a code of the secret that setup gave.",
        body=MfaCode,
        response=MfaStatus,
        refuses=(
            _ALREADY_ON,
            Refuses(400, "Call /mfa/setup/ first.", "no secret waits for its first code"),
            _WRONG_CODE,
            *_LIMITS,
        ),
        examples=(
            Example(
                path="/api/v1/auth/mfa/verify/",
                body={"code": "418207"},
                response={"mfa_enabled": True},
            ),
        ),
    ),
    Route(
        "POST",
        "/auth/mfa/disable/",
        disable,
        auth=Auth.BEARER,
        section="auth",
        act="mfa_disable",
        summary="Switch MFA off with a code; keys stay valid.",
        body=MfaCode,
        response=MfaStatus,
        refuses=(Refuses(400, "MFA is not enabled.", "it is off"), _WRONG_CODE, *_LIMITS),
        examples=(
            Example(
                path="/api/v1/auth/mfa/disable/",
                body={"code": "418207"},
                response={"mfa_enabled": False},
            ),
        ),
    ),
    Route(
        "GET",
        "/auth/mfa/status/",
        get_status,
        auth=Auth.BEARER,
        section="auth",
        summary="Tell whether the caller's logins need a code.",
        response=MfaStatus,
        examples=(Example(path="/api/v1/auth/mfa/status/", response={"mfa_enabled": False}),),
    ),
    Route(
        "POST",
        "/auth/mfa/login-verify/",
        verify_login,
        auth=Auth.NONE,
        section="auth",
        act="login_code",
        summary="Finish a login with a code, within 300 s of the password.",
        body=MfaLogin,
        response=TokenResponse,
        refuses=(
            Refuses(401, "Invalid credentials.", "no password step, or not of a user with MFA"),
            Refuses(401, "Invalid TOTP code.", "the code is wrong or was used"),
            *_LIMITS,
        ),
        examples=(
            Example(
                path="/api/v1/auth/mfa/login-verify/",
                body={"username": "maria", "code": "418207"},
                response={
                    "key": "u3Rk9_aQ5sVtLxw0yJfP2hZcD8mEoNbG7iKqUrWlXvA",
                    "requires_mfa": False,
                },
            ),
            Example(
                path="/api/v1/auth/mfa/login-verify/",
                body={"username": "maria", "code": "000000"},
                status=401,
                response={"detail": "Invalid TOTP code."},
            ),
        ),
    ),
    Route(
        "POST",
        "/auth/mfa/reset/",
        reset,
        auth=Auth.BEARER,
        section="auth",
        act="mfa_reset",
        summary="Switch MFA off without a code, from the server's own machine only.",
        response=MfaStatus,
        refuses=(
            Refuses(
                403,
                NOT_FROM_HERE,
                "the client is elsewhere, or a proxy forwarded the request",
            ),
        ),
        examples=(Example(path="/api/v1/auth/mfa/reset/", response={"mfa_enabled": False}),),
    ),
)
