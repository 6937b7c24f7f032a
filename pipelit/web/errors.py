"""The one table from refusals to HTTP. Contract: README.md §4."""

from pipelit.errors import (
    BadGateway,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Refusal,
    ServerFault,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from pipelit.web.responses import Response

STATUSES: dict[type[Refusal], int] = {
    BadRequest: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    Invalid: 422,
    TooMany: 429,
    ServerFault: 500,
    BadGateway: 502,
    Unavailable: 503,
}


class HttpRefusal(Exception):
    """A refusal that only HTTP knows: 404 of a path, 405, 413, 415, timeouts of the body."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


def to_response(error: Refusal | HttpRefusal) -> Response:
    """Return the answer a refusal stands for."""
    if isinstance(error, HttpRefusal):
        return _detail(error.status, error.detail, error.headers)
    if isinstance(error, Invalid) and error.problems:
        return _detail(422, {"validation_errors": list(error.problems)})
    headers: dict[str, str] = {}
    if isinstance(error, TooMany | Unavailable):
        headers["Retry-After"] = str(error.retry_after)
    elif isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return _detail(_status(error), error.detail, headers)


def internal_error() -> Response:
    """Return the answer to a bug: no internals in it."""
    return _detail(500, "Internal server error.")


def find_refusal(error: BaseException) -> Refusal | HttpRefusal | None:
    """Return the refusal that *error* is, also when nurseries wrapped it alone in groups."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, Refusal | HttpRefusal) else None


def _status(error: Refusal) -> int:
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 400)


def _detail(status: int, detail: object, headers: dict[str, str] | None = None) -> Response:
    return Response(status=status, body={"detail": detail}, headers=headers or {})
