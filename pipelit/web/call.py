"""What a handler is given: the request after every check, typed."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast

import msgspec
from typing_extensions import TypeVar as DefaultTypeVar

from pipelit.services.principal import Principal

_BodyT = DefaultTypeVar("_BodyT", default=Any)
_QueryT = DefaultTypeVar("_QueryT", default=Any)
_HeadersT = DefaultTypeVar("_HeadersT", default=Any)
_ServiceT = TypeVar("_ServiceT")


class PathValues(msgspec.Struct, frozen=True):
    """The parameters of the path, decoded and checked against the template."""

    values: Mapping[str, str | int]

    def text(self, name: str) -> str:
        """Return the text parameter *name* (`{name}` or `{name:path}`)."""
        return cast("str", self.values[name])

    def number(self, name: str) -> int:
        """Return the integer parameter *name* (`{name:int}`)."""
        return cast("int", self.values[name])


class Services:
    """The objects a handler may ask, found by their class. Built once by the composition root."""

    def __init__(self, *services: object) -> None:
        self._by_type = {type(service): service for service in services}

    def get(self, kind: type[_ServiceT]) -> _ServiceT:
        """Return the instance of *kind*.

        Raises:
            LookupError: the composition root passed none.
        """
        try:
            return cast("_ServiceT", self._by_type[kind])
        except KeyError:
            raise LookupError(f"no service of type {kind.__name__} was given") from None


class Call(msgspec.Struct, Generic[_BodyT, _QueryT, _HeadersT], frozen=True, kw_only=True):
    """One checked request.

    `body`, `query` and `headers` are instances of the models the route declares, None where it
    declares none. `peer` is the address of the other end of the TCP connection, never a header.
    """

    path: PathValues
    body: _BodyT
    query: _QueryT
    headers: _HeadersT
    services: Services
    peer: str
    request_id: str
    raw_headers: Mapping[str, str]
    """Header names in lower case; a repeated header is joined with a comma."""
    raw_query: Mapping[str, str]
    """Every query parameter as sent, last of a repeated one."""
    raw_body: object = None
    """The body as parsed JSON, before the model: what Idempotency-Key compares."""
    caller: Principal | None = None

    @property
    def principal(self) -> Principal:
        """Who asks. Only on routes that declare an auth other than `Auth.NONE`."""
        if self.caller is None:
            raise LookupError("this route has no authenticated caller")
        return self.caller

    def service(self, kind: type[_ServiceT]) -> _ServiceT:
        """Return the service of class *kind*."""
        return self.services.get(kind)
