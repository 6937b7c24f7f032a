"""What the operator sees: the state of the server, and its metrics."""

from pipelit.actors.runtime import System
from pipelit.assembly.base import Base
from pipelit.log_writer import dropped_lines
from pipelit.services.metrics import MetricsService
from pipelit.services.system import SystemService


def build_operations(base: Base, system: System) -> tuple[object, ...]:
    """Build the services on a running tree."""
    store = base.opened.store
    service = SystemService(system, store, base.owner, base.world.clock, stuck=base.stuck)
    metrics = MetricsService(
        base.metrics,
        system,
        store,
        stuck=base.stuck,
        uptime=lambda: service.uptime,
        log_dropped=dropped_lines,
        token=base.settings.metrics_token.get_secret_value(),
    )
    return service, metrics
