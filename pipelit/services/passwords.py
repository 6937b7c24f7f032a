"""Passwords at rest: bcrypt over a digest, so that nothing is cut off at 72 bytes.

Slow on purpose, so nothing here runs on the loop. Contract: auth.md, Passwords and keys.
"""

import base64
import hashlib

import bcrypt


class Passwords:
    """Hashes and checks passwords. Holds nothing but the cost."""

    def __init__(self, *, cost: int = 12) -> None:
        """*cost*: the work doubles with each step; 12 is about 0.3 s. Tests use 4."""
        self._cost = cost
        # Well-formed, of equal cost, and the hash of no known password.
        self._dummy = f"$2b${cost:02d}${'.' * 53}"

    def hash(self, password: str) -> str:
        """Return a salted hash of *password*."""
        return bcrypt.hashpw(_digest(password), bcrypt.gensalt(self._cost)).decode()

    def verify(self, password: str, hashed: str | None) -> bool:
        """Tell whether *password* fits *hashed*; without a hash do the same work and deny."""
        fits = bcrypt.checkpw(_digest(password), (hashed or self._dummy).encode())
        return fits and hashed is not None


def _digest(password: str) -> bytes:
    # Base64, because bcrypt stops at a NUL byte.
    return base64.b64encode(hashlib.sha256(password.encode()).digest())
