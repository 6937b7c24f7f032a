"""One trace per execution: spans for it, its nodes, their tools and their calls of models.

Made from the events that everybody hears, so nothing that runs knows of it. The id of a trace is
the id of its execution without hyphens. Prompts, answers and errors' texts are never in a span.
Needs the extra `otel`; imported only when traces are wanted. Contract: operations.md §3.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

MAX_RUNS = 10_000
"""Executions whose spans are open; the oldest is given up first."""
MAX_SPANS = 10_000
"""Open spans of one execution; further nodes get none."""

_ENDINGS = frozenset({"execution_completed", "execution_failed", "execution_cancelled"})
_NODE_ENDS = frozenset({"success", "failed", "skipped"})


class _Run:
    """The open spans of one execution."""

    def __init__(self, root: Span) -> None:
        self.root = root
        self.spans: dict[tuple[str, ...], deque[Span]] = {}
        self.open = 0


class Traces:
    """Owned by one server; called from its Trio run only."""

    def __init__(self, processor: SpanProcessor, *, version: str) -> None:
        self._ids = _ExecutionIds()
        self._provider = TracerProvider(
            id_generator=self._ids,
            resource=Resource.create({"service.name": "pipelit", "service.version": version}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer: Tracer = self._provider.get_tracer("pipelit")
        self._runs: OrderedDict[str, _Run] = OrderedDict()

    def hear(self, kind: str, execution_id: str, timestamp: float, data: Mapping[str, Any]) -> None:
        """Take note of an event of an execution."""
        if kind == "execution_started" or (
            kind == "node_status" and execution_id not in self._runs
        ):
            self._begin(execution_id, timestamp, data)
        if kind == "node_status":
            self._node(self._runs[execution_id], timestamp, data)
        elif kind in _ENDINGS:
            self._end(execution_id, kind.removeprefix("execution_"), timestamp, data)

    def model_called(
        self,
        execution_id: str,
        node_id: str,
        *,
        began: float,
        ended: float,
        outcome: str,
        attributes: Mapping[str, str | int],
    ) -> None:
        """Add a finished call of a model, below its node. *began*, *ended*: Unix seconds."""
        run = self._runs.get(execution_id)
        if run is None:
            return
        span = self._tracer.start_span(
            f"chat {attributes.get('gen_ai.request.model', '')}",
            context=set_span_in_context(_latest(run, node_id) or run.root),
            kind=SpanKind.CLIENT,
            attributes=dict(attributes),
            start_time=_nanoseconds(began),
        )
        _finish(span, failed=outcome != "success", at=ended)

    def close(self) -> None:
        """Hand over what is finished, within seconds. Blocks: for a thread."""
        self._provider.shutdown()

    def _begin(self, execution_id: str, timestamp: float, data: Mapping[str, Any]) -> None:
        self._ids.execution_id = execution_id
        attributes = {"pipelit.execution_id": execution_id}
        if "workflow_id" in data:
            attributes["pipelit.workflow_id"] = str(data["workflow_id"])
        root = self._tracer.start_span(
            "execution", attributes=attributes, start_time=_nanoseconds(timestamp)
        )
        self._runs[execution_id] = _Run(root)
        if len(self._runs) > MAX_RUNS:
            self._runs.popitem(last=False)

    def _node(self, run: _Run, timestamp: float, data: Mapping[str, Any]) -> None:
        is_tool = bool(data.get("is_tool_call"))
        path: tuple[str, ...] = (str(data["node_id"]),)
        if is_tool:
            path = (str(data["parent_node_id"]), *path, str(data["tool_name"]))
        if data["status"] == "running":
            if run.open < MAX_SPANS:
                self._start(run, path, timestamp, data)
        elif data["status"] in _NODE_ENDS and (spans := run.spans.get(path)):
            run.open -= 1
            _finish(
                spans.popleft(), failed=data["status"] == "failed", at=timestamp,
                code=data.get("error_code"),
            )  # fmt: skip

    def _start(
        self, run: _Run, path: tuple[str, ...], timestamp: float, data: Mapping[str, Any]
    ) -> None:
        is_tool = len(path) > 1
        parent = (_latest(run, path[0]) if is_tool else None) or run.root
        span = self._tracer.start_span(
            f"tool {path[-1]}" if is_tool else f"node {path[0]}",
            context=set_span_in_context(parent),
            attributes={
                "pipelit.node_id": str(data["node_id"]),
                "pipelit.component_type": str(data["component_type"]),
            },
            start_time=_nanoseconds(timestamp),
        )
        run.spans.setdefault(path, deque()).append(span)
        run.open += 1

    def _end(
        self, execution_id: str, status: str, timestamp: float, data: Mapping[str, Any]
    ) -> None:
        run = self._runs.pop(execution_id, None)
        if run is None:
            return
        for spans in run.spans.values():
            for span in spans:  # cut off by the end
                _finish(span, failed=status != "completed", at=timestamp)
        run.root.set_attribute("pipelit.status", status)
        _finish(run.root, failed=status == "failed", at=timestamp, code=data.get("error_code"))


class _ExecutionIds(RandomIdGenerator):
    """Names a trace after its execution."""

    execution_id = ""

    def generate_trace_id(self) -> int:
        """Return the id of the execution that begins."""
        try:
            return UUID(self.execution_id).int
        except ValueError:
            return super().generate_trace_id()


def _latest(run: _Run, node_id: str) -> Span | None:
    spans = run.spans.get((node_id,))
    return spans[-1] if spans else None


def _finish(span: Span, *, failed: bool, at: float, code: object = None) -> None:
    if failed:
        span.set_status(Status(StatusCode.ERROR, str(code) if code else None))
    span.end(end_time=_nanoseconds(at))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000_000)
