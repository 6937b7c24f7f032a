"""Traces, if the operator wants them: the standard variables of OpenTelemetry say where to."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog
import trio

from pipelit import __version__
from pipelit.actors.runtime import get_log_context
from pipelit.clock import Clock
from pipelit.engine.outcome import Usage
from pipelit.llm.types import ProviderSpec

if TYPE_CHECKING:
    from pipelit.tracing import Traces

WANTED_BY = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
CLOSE_SECONDS = 5.0


async def open_traces(
    environ: Mapping[str, str], say: Callable[[str], None], stack: AsyncExitStack
) -> "Traces | None":
    """Return what makes traces, None when nobody wants them. *stack* hands over the last ones."""
    wanted = next((name for name in WANTED_BY if environ.get(name)), None)
    if wanted is None:
        return None
    try:
        traces = await trio.to_thread.run_sync(_build)
    except ImportError:
        say(f"{wanted} is set, but traces need the extra: pip install 'pipelit[otel]'.")
        return None
    stack.push_async_callback(_close, traces)
    return traces


def _build() -> "Traces":
    # Imported in a thread when they are wanted: half a second, and an extra that may be missing.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from pipelit.tracing import Traces

    # Its queue is bounded and its thread talks to the collector: what does not fit is dropped.
    return Traces(BatchSpanProcessor(OTLPSpanExporter()), version=__version__)


async def _close(traces: "Traces") -> None:
    # A collector that does not answer must not hold up the end of the server.
    with trio.move_on_after(CLOSE_SECONDS, shield=True):
        await trio.to_thread.run_sync(traces.close, abandon_on_cancel=True)


def trace_call(
    traces: "Traces",
    clock: Clock,
    spec: ProviderSpec,
    model: str,
    outcome: str,
    used: Usage,
    seconds: float,
) -> None:
    """Add a finished call to the trace of the execution whose node makes it."""
    ids = {**structlog.contextvars.get_contextvars(), **get_log_context()}
    ended = clock.now().timestamp()
    traces.model_called(
        str(ids.get("execution_id")),
        str(ids.get("node_id")),
        began=ended - seconds,
        ended=ended,
        outcome=outcome,
        attributes={
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": spec.provider_type,
            "gen_ai.request.model": model,
            "gen_ai.usage.input_tokens": used.input_tokens,
            "gen_ai.usage.output_tokens": used.output_tokens,
        },
    )
