"""Keeps the message gateway's credentials in step with ours. credentials.md, beyond.md §6.

The gateway is asked first: what it refuses is not changed here. Without a gateway there is nothing
to keep in step.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import trio

from pipelit.errors import BadGateway
from pipelit.net.gateway import Gateway, GatewayError
from pipelit.services.credential_detail import CredentialType, Values

CALLS_AT_ONCE = 8
BATCH_PATIENCE = 60.0
"""Seconds for all calls of a batch; what is not done by then counts as failed."""

_FIELDS = {"adapter_type": "adapter", "token": "token", "config": "config"}


class GatewaySync:
    """What the credentials service asks of the gateway. Other types than `gateway` pass by."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def register(self, kind: CredentialType, values: Values) -> None:
        """Make a new credential known.

        Raises:
            BadGateway: it was not taken.
        """
        if self._concerns(kind):
            fields = {name: values[ours] for ours, name in _FIELDS.items()}
            if fields["config"] is None:
                del fields["config"]
            with _refusing():
                await self._gateway.register(values["gateway_credential_id"], fields)

    async def take_back(self, kind: CredentialType, values: Values) -> None:
        """Undo `register` for a credential that could not be stored, best effort."""
        if self._concerns(kind):
            with suppress(GatewayError):
                await self._gateway.forget(values["gateway_credential_id"])

    async def change(self, kind: CredentialType, values: Values, sent: Mapping[str, Any]) -> None:
        """Pass on what a PATCH changes of a credential, now with these *values*.

        Raises:
            BadGateway: it was not taken.
        """
        fields = {name: values[ours] for ours, name in _FIELDS.items() if ours in sent}
        if fields and self._concerns(kind):
            with _refusing():
                await self._gateway.change(values["gateway_credential_id"], fields)

    async def forget(self, kind: CredentialType, values: Values) -> None:
        """Remove a credential.

        Raises:
            BadGateway: it was not removed.
        """
        if self._concerns(kind):
            with _refusing():
                await self._gateway.forget(values["gateway_credential_id"])

    async def forget_all(self, doomed: Mapping[int, str]) -> None:
        """Remove credentials: {our id: the gateway's}.

        Raises:
            BadGateway: some are still there.
        """
        if not self._gateway.is_configured:
            return
        left, limiter = set(doomed), trio.CapacityLimiter(CALLS_AT_ONCE)

        async def forget(credential_id: int) -> None:
            async with limiter:
                with suppress(GatewayError):
                    await self._gateway.forget(doomed[credential_id])
                    left.discard(credential_id)

        with trio.move_on_after(BATCH_PATIENCE):
            async with trio.open_nursery() as nursery:
                for credential_id in doomed:
                    nursery.start_soon(forget, credential_id)
        if left:
            ids = ", ".join(map(str, sorted(left)))
            raise BadGateway(f"Failed to delete gateway credentials: {ids}. Database unchanged.")

    async def set_active(self, credential_id: str, *, active: bool) -> dict[str, Any]:
        """Activate or deactivate a credential and return the gateway's answer.

        Raises:
            BadGateway: it refused, or there is no gateway.
        """
        with _refusing():
            return await self._gateway.set_active(credential_id, active=active)

    def _concerns(self, kind: CredentialType) -> bool:
        return kind == "gateway" and self._gateway.is_configured


@contextmanager
def _refusing() -> Iterator[None]:
    """Answer what the gateway refuses with 502."""
    try:
        yield
    except GatewayError as error:
        raise BadGateway(str(error)) from error
