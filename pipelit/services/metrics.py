"""The text under `/metrics`: what was counted, and what is looked up at this moment."""

from collections.abc import Callable

import trio

from pipelit.actors.runtime import System
from pipelit.actors.stuck import StuckFinder
from pipelit.metrics import Metrics
from pipelit.store import Store


class MetricsService:
    """Renders the metrics of one server, one reader after the other."""

    def __init__(
        self,
        metrics: Metrics,
        system: System,
        store: Store,
        *,
        stuck: StuckFinder,
        uptime: Callable[[], float],
        log_dropped: Callable[[], int],
        token: str,
    ) -> None:
        self._metrics = metrics
        self._system = system
        self._store = store
        self._stuck = stuck
        self._uptime = uptime
        self._log_dropped = log_dropped
        self.token = token
        """The setting METRICS_TOKEN; "" when it is not set."""
        self._lock = trio.Lock()

    async def render(self) -> bytes:
        """Return everything as Prometheus text. Asks no database, so it works without one."""
        async with self._lock:
            counts = self._system.count_kinds()
            self._metrics.set_actors({k: (n.actors, n.deepest) for k, n in counts.items()})
            self._metrics.set_platform(
                queue_depth=self._store.statistics().queue_depth,
                stuck=self._stuck.count,
                uptime=self._uptime(),
                dead_letters=self._system.dead_letters,
                log_dropped=self._log_dropped(),
            )
            return await trio.to_thread.run_sync(self._metrics.render)
