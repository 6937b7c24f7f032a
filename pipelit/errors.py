"""The errors an observer may meet.

`Refusal` and its subclasses are answers, not failures: a request the product understands and
declines. Each carries the exact text of the contract; `pipelit.web.errors` maps the class to a
status. Every layer's failures derive from `PipelitError` too.
"""

from collections.abc import Sequence


class PipelitError(Exception):
    """Root of every error this package raises on purpose."""


class Refusal(PipelitError):
    """A request is declined; the caller can act on it. `detail` is the contract's text."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(Refusal):
    """A business rule forbids the request (400)."""


class Unauthenticated(Refusal):
    """Nobody, or nobody known, asks (401)."""


class Forbidden(Refusal):
    """The caller may see but not do this (403)."""


class NotFound(Refusal):
    """It is not there, or not visible to the caller; the two are indistinguishable (404)."""


class Conflict(Refusal):
    """It exists already, or its state does not allow this (409)."""


class TooLarge(Refusal):
    """It is bigger than the product takes (413)."""

    def __init__(self, detail: str = "Request body too large.") -> None:
        super().__init__(detail)


class Invalid(Refusal):
    """The request breaks schema or graph rules (422).

    `problems` holds every problem at once; empty when the contract wants the plain `detail`.
    """

    def __init__(self, detail: str = "", *, problems: Sequence[str] = ()) -> None:
        super().__init__(detail or "; ".join(problems))
        self.problems = tuple(problems)


class TooMany(Refusal):
    """Too many attempts (429). `retry_after`: whole seconds, at least 1."""

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = max(1, retry_after)


class ServerFault(Refusal):
    """The server cannot do its part, and the contract says in which words (500)."""


class BadGateway(Refusal):
    """A service we depend on refused or did not answer (502)."""


class Unavailable(Refusal):
    """The server cannot take this now (503). `retry_after`: whole seconds, at least 1."""

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = max(1, retry_after)


_DATABASES = {"sqlalchemy", "sqlite3", "psycopg"}


def public_text(error: Exception) -> str:
    """Return what people and models may read of an error that nobody planned.

    The words of a database could name hosts, files and what is stored.
    """
    name = type(error).__name__
    if type(error).__module__.partition(".")[0] in _DATABASES:
        return f"internal error ({name})"
    return str(error) or name
