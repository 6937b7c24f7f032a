"""From a request to its entry in the audit log. Contract: operations.md §7.

A route says which act it is (`Route(act=…)`); here is what of request and answer is kept: ids,
roles and names of changed fields, never a value that could be secret.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from pipelit.services.audit_log import NewEntry, Outcome
from pipelit.services.principal import Principal
from pipelit.web.call import Call
from pipelit.web.request import Head
from pipelit.web.responses import Response
from pipelit.web.routing import Auth, Route

Record = Callable[[NewEntry], Awaitable[None]]
"""Keeps an entry; raises nothing but cancellation."""

PATIENCE = 5.0
"""Seconds an answer waits until its act is written down."""

MAX_IDS = 100
_KEPT_OF_BODY = ("role", "is_active")
_KEPT_OF_ANSWER = ("id", "requires_mfa")
_REFUSALS = frozenset({400, 401, 403})


async def record_nothing(_entry: NewEntry) -> None:
    """Keep no entries: for applications without an audit log."""


@dataclass(kw_only=True)
class Deed:
    """A request behind the door, as far as it has come. Belongs to the request's task."""

    route: Route
    head: Head
    request_id: str
    caller: Principal | None
    call: Call[Any, Any, Any] | None = None
    """None: it was not well-formed, or not for this role."""
    status: int | None = None
    """None: the caller left before there was an answer."""
    result: object = None

    @property
    def outcome(self) -> Outcome | None:
        """What came of it; None: nothing worth an entry.

        Missing keys, throttled and malformed requests did nothing and cost their sender nothing:
        they are in the request log only.
        """
        if self.status is None or self.status >= 500:
            return None if self.caller is None else "unknown"
        if self.status < 300:
            return "done"
        is_known = self.caller is not None or self.route.auth is Auth.NONE
        return "refused" if self.status in _REFUSALS and is_known else None


def describe(deed: Deed) -> NewEntry | None:
    """Return the entry of a deed, if it is worth one."""
    outcome, caller = deed.outcome, deed.caller
    if deed.route.act is None or outcome is None:
        return None
    claimed = "" if deed.call is None else getattr(deed.call.body, "username", "")
    return NewEntry(
        kind=deed.route.act,
        outcome=outcome,
        user_id=caller.user_id if caller else None,
        username=caller.username if caller else claimed,
        key_id=caller.key_id if caller else None,
        peer=deed.head.peer,
        request_id=deed.request_id,
        subject=_subject(deed),
    )


def _subject(deed: Deed) -> dict[str, Any]:
    if deed.call is None:
        return {}
    subject: dict[str, Any] = dict(deed.call.path.values)
    body = deed.call.body
    if isinstance(body, BaseModel):
        if deed.route.method == "PATCH":
            subject["fields"] = sorted(body.model_fields_set)
        subject |= _pick(body, _KEPT_OF_BODY)
        if isinstance(ids := getattr(body, "ids", None), list):
            subject["ids"] = ids[:MAX_IDS]
    answer = deed.result.body if isinstance(deed.result, Response) else None
    return subject | _pick(answer, _KEPT_OF_ANSWER)


def _pick(source: object, names: tuple[str, ...]) -> dict[str, Any]:
    found = {name: getattr(source, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}
