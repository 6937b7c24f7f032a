"""What starts executions from outside: chat, webhooks, the message gateway."""

from contextlib import suppress

from pipelit.actors import paths
from pipelit.actors.delivery import Say
from pipelit.actors.runtime import ActorError, System
from pipelit.assembly.base import Base
from pipelit.services.chats import ChatsService
from pipelit.services.confirmations import Confirmations
from pipelit.services.inbound import InboundService
from pipelit.services.retries import Retries
from pipelit.services.starts import Starter
from pipelit.services.webhooks import WebhooksService


def build_starter(base: Base, system: System) -> Starter:
    """Build the one way in."""
    return Starter(
        base.opened.store,
        base.world.clock,
        base.world.ids,
        manager=system.ref(paths.MANAGER),
        default_limit=base.settings.max_execution_seconds,
    )


def build_entrances(base: Base, system: System, starter: Starter) -> tuple[object, ...]:
    """Build the services people and machines start executions through."""
    store, ids, clock = base.opened.store, base.world.ids, base.world.clock
    delivery = system.ref(paths.DELIVERY)

    def tell(credential_id: str, chat_id: str, text: str) -> None:
        with suppress(ActorError):  # best effort
            delivery.tell(Say(credential_id, chat_id, text))

    session = system.family(paths.CHATS).ref
    confirmations = Confirmations(store, clock, manager=system.ref(paths.MANAGER))
    return (
        confirmations,
        ChatsService(store, starter, ids, session=session),
        Retries(store, starter, clock, ids, session=session),
        WebhooksService(store, starter),
        InboundService(
            store,
            starter,
            confirmations,
            token=base.settings.gateway_inbound_token.get_secret_value(),
            tell=tell,
        ),
    )
