"""What the server counts. One `Metrics` per server; its words are the product's, not Prometheus's.

Counters and histograms are fed where things happen. Gauges are set when somebody asks, by
`pipelit.services.metrics`. Every set of labels is bounded. Contract: operations.md §3.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

MAX_MODELS = 200
"""Pairs of provider and model with series of their own; further ones count as `other`."""
MAX_STARTS = 20_000
"""Executions whose start is remembered for their duration; the oldest are forgotten first."""

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LONG = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
_ENDINGS = {
    "execution_completed": "completed",
    "execution_failed": "failed",
    "execution_cancelled": "cancelled",
}


class Metrics:
    """Everything under `/metrics`. Belongs to one Trio run, but may be rendered in a thread."""

    def __init__(self) -> None:
        # Process-wide, like the library's switch itself: a second series per counter, with the
        # time of its creation, tells nobody anything.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._models: set[tuple[str, str]] = set()
        self._starts: OrderedDict[str, float] = OrderedDict()  # {execution: Unix seconds}
        self._declare_work()
        self._declare_platform()
        self._declare_gauges()

    def render(self) -> bytes:
        """Return everything as Prometheus text."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"pipelit_{name}", text, labels, registry=self._registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = _FAST
    ) -> Histogram:
        return Histogram(f"pipelit_{name}", text, labels, buckets=buckets, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"pipelit_{name}", text, labels, registry=self._registry)

    def _declare_work(self) -> None:
        self._executions = self._counter("executions_total", "Executions ended.", "status")
        for status in _ENDINGS.values():
            self._executions.labels(status)
        self._execution_duration = self._histogram(
            "execution_duration_seconds", "From start to end of an execution.", buckets=_LONG
        )
        self._execution_queue = self._histogram(
            "execution_queue_seconds", "From request to start of an execution.", buckets=_LONG
        )
        self._nodes = self._histogram(
            "node_duration_seconds", "Attempts of nodes.", "component_type", "status",
            buckets=_LONG,
        )  # fmt: skip
        self._llm_calls = self._counter(
            "llm_calls_total", "Calls of models.", "provider", "model", "outcome"
        )
        self._llm_tokens = self._counter(
            "llm_tokens_total", "Tokens that models read and wrote.", "direction"
        )
        for direction in ("input", "output"):
            self._llm_tokens.labels(direction)
        self._llm_cost = self._counter("llm_cost_usd_total", "What calls of models cost, in USD.")
        self._blocked = self._counter(
            "egress_blocked_total", "Connections that the egress policy refused.", "caller"
        )
        self._fires = self._counter(
            "schedule_fires_total", "Due times of scheduled jobs.", "outcome"
        )
        self._schedule_lag = self._histogram(
            "schedule_lag_seconds", "How late due times had their effect.", buckets=_LONG
        )

    def _declare_platform(self) -> None:
        self._crashes = self._counter("actor_crashes_total", "Actors that crashed.", "kind")
        self._restarts = self._counter("actor_restarts_total", "Actors restarted.", "kind")
        self._events = self._counter("supervision_events_total", "Supervision records.", "event")
        self._commit = self._histogram("store_commit_seconds", "Time of a transaction.")
        self._batch = self._histogram("store_batch_size", "Units in a transaction.", buckets=_BATCH)
        self._ws_events = self._counter("ws_events_total", "Events sent to WebSockets.")
        self._ws_slow = self._counter(
            "ws_slow_consumer_closes_total", "WebSockets closed because they read too slowly."
        )
        self._ws_open = self._gauge("ws_connections", "WebSockets open now.")
        self._requests = self._counter(
            "http_requests_total", "HTTP requests answered.", "route", "method", "status"
        )
        self._request_seconds = self._histogram(
            "http_request_seconds", "Until the answer to a request was ready.", "route"
        )
        self._loop_lag = self._histogram(
            "event_loop_lag_seconds", "How long a round of the event loop kept others waiting."
        )

    def _declare_gauges(self) -> None:
        self._actors = self._gauge("actors", "Actors alive.", "kind")
        self._mailboxes = self._gauge("mailbox_depth", "Messages in the fullest mailbox.", "kind")
        self._dead_letters = self._counter("dead_letters_total", "Messages that reached nobody.")
        self._log_dropped = self._counter(
            "log_lines_dropped_total", "Log lines dropped because the output was too slow."
        )
        self._queue_depth = self._gauge("store_queue_depth", "Units waiting for their commit.")
        self._active = self._gauge("executions_active", "Executions that run on this server.")
        self._stuck = self._gauge(
            "stuck_executions", "Executions that wait for nothing and do not run; must be 0."
        )
        self._uptime = self._gauge("uptime_seconds", "Since the start of the process.")

    # Work

    def hear(self, kind: str, execution_id: str, timestamp: float, data: Mapping[str, Any]) -> None:
        """Take note of an event of an execution."""
        if kind == "node_status":
            self._node(data)
        elif kind == "execution_started":
            self._starts[execution_id] = timestamp
            if len(self._starts) > MAX_STARTS:
                self._starts.popitem(last=False)
        elif kind in _ENDINGS:
            self._executions.labels(_ENDINGS[kind]).inc()
            started = self._starts.pop(execution_id, None)
            if started is not None:  # else it started in another process
                self._execution_duration.observe(max(0.0, timestamp - started))

    def _node(self, data: Mapping[str, Any]) -> None:
        duration, status = data.get("duration_ms"), data["status"]
        if duration is not None and status in ("success", "failed") and "taken_over" not in data:
            self._nodes.labels(data["component_type"], status).observe(duration / 1000)

    def execution_began(self, waited: float) -> None:
        """Count an execution that started after *waited* seconds."""
        self._execution_queue.observe(max(0.0, waited))

    def model_called(
        self, provider: str, model: str, outcome: str, *, tokens: tuple[int, int], cost_micros: int
    ) -> None:
        """Count a call of a model. *tokens*: read, written; *cost_micros*: micro-dollars."""
        pair = (provider, model)
        if pair not in self._models:
            if len(self._models) < MAX_MODELS:
                self._models.add(pair)
            else:
                pair = (provider, "other")
        self._llm_calls.labels(*pair, outcome).inc()
        for direction, count in zip(("input", "output"), tokens, strict=True):
            self._llm_tokens.labels(direction).inc(max(0, count))
        self._llm_cost.inc(max(0, cost_micros) / 1_000_000)

    def egress_blocked(self, caller: str) -> None:
        """Count a connection that the policy refused."""
        self._blocked.labels(caller).inc()

    def schedule_fired(self, outcome: str, lag: float) -> None:
        """Count a due time: `started`, `failed` or `skipped`, *lag* seconds late."""
        self._fires.labels(outcome).inc()
        self._schedule_lag.observe(max(0.0, lag))

    # Platform

    def supervised(self, event: str, kind: str) -> None:
        """Count a supervision record."""
        self._events.labels(event).inc()
        if event == "actor_crashed":
            self._crashes.labels(kind).inc()
        elif event == "actor_restarted":
            self._restarts.labels(kind).inc()

    def committed(self, units: int, seconds: float) -> None:
        """Count a transaction."""
        self._batch.observe(units)
        self._commit.observe(seconds)

    def request_answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request. *route*: the template, never the path itself."""
        known = method if method in _METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def socket_opened(self) -> None:
        """Count a WebSocket in."""
        self._ws_open.inc()

    def socket_closed(self, *, slow: bool) -> None:
        """Count a WebSocket out."""
        self._ws_open.dec()
        if slow:
            self._ws_slow.inc()

    def socket_events(self, count: int) -> None:
        """Count events written to a WebSocket."""
        self._ws_events.inc(count)

    def loop_was_late(self, seconds: float) -> None:
        """Take note of one round of the event loop."""
        self._loop_lag.observe(seconds)

    # What is looked up when somebody asks

    def set_actors(self, counts: Mapping[str, tuple[int, int]]) -> None:
        """Show the actors: `{kind: (how many, depth of the fullest mailbox)}`."""
        self._actors.clear()
        self._mailboxes.clear()
        for kind, (count, depth) in counts.items():
            self._actors.labels(kind).set(count)
            self._mailboxes.labels(kind).set(depth)
        self._active.set(counts.get("execution", (0, 0))[0])

    def set_platform(
        self, *, queue_depth: int, stuck: int, uptime: float, dead_letters: int, log_dropped: int
    ) -> None:
        """Show the rest; the last two are totals since the start, which never go down."""
        self._queue_depth.set(queue_depth)
        self._stuck.set(stuck)
        self._uptime.set(uptime)
        for counter, total in (
            (self._dead_letters, dead_letters),
            (self._log_dropped, log_dropped),
        ):
            shown = next(iter(counter.collect())).samples[0].value
            counter.inc(max(0.0, total - shown))
