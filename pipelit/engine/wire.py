"""The event and log bodies of a run, exactly as clients read them.

Contract: websocket.md "Execution", engine.md §8.4, §9.2.
"""

from typing import Any

from pipelit.engine.changes import Ending, Question
from pipelit.engine.definition import NodeDef
from pipelit.engine.descendants import Descendants
from pipelit.engine.instants import instant_text
from pipelit.engine.outcome import Failure, Report, Usage
from pipelit.engine.output import MAX_EVENT_ERROR, event_output
from pipelit.engine.specs import display_name

USAGE_MISSING = {"code": "usage_missing", "message": "The provider reported no usage."}


def node_status(execution_id: str, node: NodeDef, status: str, **fields: Any) -> dict[str, Any]:
    """Build the data of a `node_status` event; fields that are None are left out."""
    return {
        "execution_id": execution_id,
        "node_id": node.node_id,
        "status": status,
        "component_type": node.component_type,
        "display_name": display_name(node.component_type),
        "node_label": node.label or node.node_id,
        **{name: value for name, value in fields.items() if value is not None},
    }


def succeeded_fields(
    ports: dict[str, Any], usage: Usage | None, duration_ms: int
) -> dict[str, Any]:
    """Return the further fields of a `success`."""
    return {
        "output": event_output(ports),
        "duration_ms": duration_ms,
        "token_usage": usage.to_wire() if usage is not None else None,
    }


def failed_fields(
    failure: Failure, *, attempt: int, duration_ms: int, retry_in: float | None
) -> dict[str, Any]:
    """Return the further fields of a `failed`. `retry_in`: seconds, None when it is final."""
    return {
        "error": failure.message[:MAX_EVENT_ERROR],
        "error_code": failure.code,
        "duration_ms": duration_ms,
        "attempt": attempt,
        "will_retry": retry_in is not None,
        "retry_in": retry_in,
    }


def completed_fields(ending: Ending, summary: dict[str, Any]) -> dict[str, Any]:
    """Return the further fields of `execution_completed`."""
    return {"status": "completed", "output": ending.final_output, "activity_summary": summary}


def end_failed_fields(ending: Ending) -> dict[str, Any]:
    """Return the further fields of `execution_failed`."""
    fields: dict[str, Any] = {
        "error": ending.error_message[:MAX_EVENT_ERROR],
        "error_code": ending.error_code,
    }
    return fields if ending.failed_node is None else fields | {"node_id": ending.failed_node}


def question_fields(execution_id: str, question: Question) -> dict[str, Any]:
    """Build the data of `execution_interrupted`."""
    return {
        "execution_id": execution_id,
        "node_id": question.node_id,
        "task_id": question.task_id,
        "prompt": question.prompt,
        "expires_at": instant_text(question.expires_at),
    }


def log_metadata(report: Report, *, attempt: int = 0, recovered: bool = False) -> Any:
    """Build a log row's `metadata`: only what says something, None without any."""
    said: dict[str, Any] = {}
    if report.model is not None:
        usage = report.usage or Usage()
        said |= {
            "model": report.model,
            "tokens": usage.total_tokens,
            "token_usage": usage.to_wire(),
        }
    if report.warnings:
        said["warnings"] = list(report.warnings)
    if attempt:
        said["attempt"] = attempt
    if report.child_execution_ids:
        said["child_execution_ids"] = list(report.child_execution_ids)
    if report.trace:
        said["trace"] = [message.to_json() for message in report.trace]
    if report.todos:
        said["todos"] = list(report.todos)
    if recovered:
        said["recovered"] = True
    return said or None


def activity_summary(
    *,
    total_steps: int,
    total_duration_ms: int,
    usage: Usage,
    descendants: Descendants = Descendants(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Build the `activity_summary` of `execution_completed`: steps and usage of its own first."""
    wire = (usage + descendants.usage).to_wire()
    return {
        "total_steps": total_steps + descendants.count,
        "total_duration_ms": total_duration_ms,
        "total_tokens": wire["total_tokens"],
        "total_cost_usd": wire["cost_usd"],
        "llm_calls": wire["llm_calls"],
        "tool_invocations": wire["tool_invocations"],
        "child_count": descendants.count,
    }
