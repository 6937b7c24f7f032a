"""What starts executions from outside: chat, webhooks."""

from pipelit.actors import paths
from pipelit.actors.runtime import System
from pipelit.assembly.base import Base
from pipelit.services.chats import ChatsService
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
    store, ids = base.opened.store, base.world.ids
    return (
        ChatsService(store, starter, ids, session=system.family(paths.CHATS).ref),
        WebhooksService(store, starter),
    )
