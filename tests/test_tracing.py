"""One trace per execution, made from its events. Contract: operations.md §3."""

from typing import Any

import pytest

otel = pytest.importorskip(
    "opentelemetry.sdk.trace.export", reason="missing package: the extra otel"
)

from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: E402
    InMemorySpanExporter,
)

from pipelit.tracing import Traces  # noqa: E402

RUN = "0f9d3f0a-3a3e-4a51-bb17-6f6f3d9be5c2"


class Recorder:
    """Feeds events of one execution and shows the spans."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.traces = Traces(otel.SimpleSpanProcessor(self.exporter), version="0")

    def hear(self, at: float, kind: str, **data: Any) -> None:
        self.traces.hear(kind, RUN, at, data)

    def node(self, at: float, node_id: str, status: str, **data: Any) -> None:
        fields = {"node_id": node_id, "status": status, "component_type": "agent", **data}
        self.hear(at, "node_status", **fields)

    def tree(self) -> dict[str, str | None]:
        """Return {name: name of its parent}."""
        spans = self.exporter.get_finished_spans()
        names = {span.context.span_id: span.name for span in spans}
        return {s.name: s.parent and names[s.parent.span_id] for s in spans}

    def span(self, name: str) -> Any:
        (found,) = [s for s in self.exporter.get_finished_spans() if s.name == name]
        return found


def test_an_execution_is_a_trace_with_its_own_id() -> None:
    """Nodes below it, tools and calls of models below their node, with the events' times."""
    recorder = Recorder()
    recorder.hear(1.0, "execution_started", workflow_id=3)
    recorder.node(2.0, "a", "running")
    tool = {"is_tool_call": True, "tool_name": "calc", "parent_node_id": "a"}
    recorder.node(3.0, "t", "running", **tool)
    recorder.node(4.0, "t", "success", **tool)
    recorder.traces.model_called(
        RUN, "a", began=4.0, ended=5.0, outcome="success",
        attributes={"gen_ai.request.model": "m"},
    )  # fmt: skip
    recorder.node(6.0, "a", "success")
    recorder.hear(7.0, "execution_completed")

    assert recorder.tree() == {
        "execution": None,
        "node a": "execution",
        "tool calc": "node a",
        "chat m": "node a",
    }
    root = recorder.span("execution")
    assert f"{root.context.trace_id:032x}" == RUN.replace("-", "")
    assert (root.start_time, root.end_time) == (1_000_000_000, 7_000_000_000)


def test_each_attempt_is_a_span_and_a_failure_says_its_code_only() -> None:
    """The text of an error may quote what a person wrote."""
    recorder = Recorder()
    recorder.hear(1.0, "execution_started", workflow_id=3)
    for at in (2.0, 4.0):
        recorder.node(at, "a", "running")
        recorder.node(at + 1, "a", "failed", error="secret text", error_code="RateLimitError")
    recorder.hear(6.0, "execution_failed", error="secret text", error_code="RateLimitError")
    spans = recorder.exporter.get_finished_spans()

    assert [span.name for span in spans] == ["node a", "node a", "execution"]
    assert {span.status.description for span in spans} == {"RateLimitError"}
    assert "secret text" not in str([span.to_json() for span in spans])


def test_what_the_end_cuts_off_is_ended() -> None:
    """And an execution that began in another process still has a trace."""
    recorder = Recorder()
    recorder.node(2.0, "a", "running")
    recorder.hear(3.0, "execution_cancelled")

    assert recorder.tree() == {"node a": "execution", "execution": None}
    assert recorder.span("node a").end_time == 3_000_000_000
