"""Codes that change every 30 s. Pure. Contract: auth.md, MFA (TOTP)."""

import base64
import hmac
from datetime import datetime
from urllib.parse import quote

import pyotp

from pipelit.clock import Ids

STEP_SECONDS = 30
ISSUER = "Pipelit"
_SECRET_BYTES = 20  # as RFC 4226 recommends; 32 characters of base32 without padding


def make_secret(ids: Ids) -> str:
    """Return a new secret of 160 bits as 32 characters of base32."""
    return base64.b32encode(bytes.fromhex(ids.hex(2 * _SECRET_BYTES))).decode()


def make_uri(username: str, secret: str) -> str:
    """Return what an authenticator app reads from a QR code."""
    return f"otpauth://totp/{ISSUER}:{quote(username, safe='')}?secret={secret}&issuer={ISSUER}"


def find_step(secret: str, code: str, now: datetime, *, after: int | None) -> int | None:
    """Return the step whose code this is: the current one or a neighbour, later than *after*.

    None: the code is wrong, or was used before.
    """
    totp = pyotp.TOTP(secret)
    current = int(now.timestamp()) // STEP_SECONDS
    for step in (current - 1, current, current + 1):
        is_unused = after is None or step > after
        if is_unused and hmac.compare_digest(totp.generate_otp(step), code):
            return step
    return None
