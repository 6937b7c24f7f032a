"""What the examples of several sections show: one workflow, its parts and one run of it."""

from typing import Any

from pipelit.engine.specs.config import CONFIG_DEFAULTS

WORKFLOW: dict[str, Any] = {
    "id": 7,
    "name": "Invoice triage",
    "slug": "invoice-triage",
    "description": "",
    "is_active": True,
    "is_public": False,
    "is_default": False,
    "tags": ["finance"],
    "error_handler_workflow_id": None,
    "max_execution_seconds": 120,
    "input_schema": None,
    "output_schema": None,
    "node_count": 1,
    "edge_count": 0,
    "trigger_count": 1,
    "created_at": "2026-02-03T08:15:00.204113",
    "updated_at": "2026-02-03T08:15:00.204113",
}
NODE: dict[str, Any] = {
    "id": 31,
    "node_id": "agent_1",
    "label": None,
    "component_type": "agent",
    "is_entry_point": False,
    "interrupt_before": False,
    "interrupt_after": False,
    "position_x": 320,
    "position_y": 0,
    "config": {**CONFIG_DEFAULTS, "system_prompt": "Be brief."},
    "subworkflow_id": None,
    "code_block_id": None,
    "updated_at": "2026-02-03T08:16:02.000412",
    "schedule_job": None,
}
TIMER: dict[str, Any] = {
    **NODE,
    "id": 32,
    "node_id": "nightly",
    "component_type": "trigger_schedule",
    "config": {**CONFIG_DEFAULTS, "extra_config": {"interval_seconds": 3600}},
    "schedule_job": {
        "id": "f4d96f5f-8435-4448-9056-f4f6a7bbf8b0",
        "status": "active",
        "run_count": 0,
        "error_count": 0,
        "current_repeat": 0,
        "current_retry": 0,
        "total_repeats": 0,
        "max_retries": 3,
        "timeout_seconds": 600,
        "interval_seconds": 3600,
        "cron": None,
        "timezone": None,
        "catch_up": "one",
        "last_run_at": None,
        "next_run_at": "2026-02-03T09:16:02.000412",
        "last_error": "",
        "created_at": "2026-02-03T08:16:02.000412",
    },
}
"""A node with a schedule that has been started."""
EDGE: dict[str, Any] = {
    "id": 12,
    "source_node_id": "model_main",
    "target_node_id": "agent_1",
    "edge_type": "direct",
    "edge_label": "llm",
    "condition_mapping": None,
    "condition_value": "",
    "priority": 0,
}
EXECUTION: dict[str, Any] = {
    "execution_id": "5b0f2f7e-6f0b-4c55-9a0e-0d3a5f1c9b21",
    "workflow_slug": "invoice-triage",
    "status": "failed",
    "error_message": "Node agent_1 failed: provider returned HTTP 429",
    "error_code": "RateLimitError",
    "started_at": "2026-02-03T09:00:00.101000",
    "completed_at": "2026-02-03T09:00:07.480221",
    "total_tokens": 812,
    "total_cost_usd": 0.000488,
    "llm_calls": 5,
    "retry_of": None,
}
