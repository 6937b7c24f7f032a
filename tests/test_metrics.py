"""What is counted, and that nobody can make endless series of it. Contract: operations.md §3."""

import re

from pipelit.metrics import MAX_MODELS, Metrics


def shown(metrics: Metrics, name: str) -> dict[str, float]:
    """Return the samples of one series: `{labels: value}`."""
    found = re.findall(rf"^pipelit_{name}(\{{.*\}})? (\S+)$", metrics.render().decode(), re.M)
    return {labels: float(value) for labels, value in found}


def test_an_execution_is_counted_once_with_its_duration() -> None:
    """One that began in another process has no duration here."""
    metrics = Metrics()
    metrics.hear("execution_started", "e1", 10.0, {"workflow_id": 1})
    metrics.hear("execution_completed", "e1", 12.5, {})
    metrics.hear("execution_failed", "e2", 20.0, {})

    assert shown(metrics, "executions_total") == {
        '{status="completed"}': 1,
        '{status="failed"}': 1,
        '{status="cancelled"}': 0,
    }
    assert shown(metrics, "execution_duration_seconds_sum") == {"": 2.5}


def test_a_result_that_was_taken_over_is_no_attempt() -> None:
    """It took its time in the execution that was retried."""
    metrics = Metrics()
    node = {"component_type": "agent", "status": "success", "duration_ms": 1500}
    metrics.hear("node_status", "e1", 1.0, node)
    metrics.hear("node_status", "e2", 1.0, {**node, "taken_over": True})
    metrics.hear("node_status", "e2", 1.0, {"component_type": "agent", "status": "running"})

    assert shown(metrics, "node_duration_seconds_count") == {
        '{component_type="agent",status="success"}': 1
    }


def test_models_have_series_up_to_a_number() -> None:
    """Their names are what people write into nodes."""
    metrics = Metrics()
    for number in range(MAX_MODELS + 50):
        metrics.model_called("openai", f"m{number}", "success", tokens=(2, 1), cost_micros=500_000)
    counts = shown(metrics, "llm_calls_total")

    assert len(counts) == MAX_MODELS + 1
    assert counts['{model="other",outcome="success",provider="openai"}'] == 50
    assert shown(metrics, "llm_tokens_total") == {
        '{direction="input"}': 2 * (MAX_MODELS + 50),
        '{direction="output"}': MAX_MODELS + 50,
    }
    assert shown(metrics, "llm_cost_usd_total") == {"": (MAX_MODELS + 50) / 2}


def test_totals_that_are_looked_up_never_go_down() -> None:
    """Prometheus would take it for a restart."""
    metrics = Metrics()
    known = {"queue_depth": 0, "stuck": 2, "uptime": 1.0, "log_dropped": 0}
    for letters in (3, 3, 5):
        metrics.set_platform(dead_letters=letters, **known)

    assert shown(metrics, "dead_letters_total") == {"": 5}
    assert shown(metrics, "stuck_executions") == {"": 2}


def test_a_kind_without_actors_is_not_shown_any_more() -> None:
    """The depth is that of its fullest mailbox."""
    metrics = Metrics()
    metrics.set_actors({"execution": (2, 0), "chat": (3, 7)})
    metrics.set_actors({"chat": (1, 4)})

    assert shown(metrics, "actors") == {'{kind="chat"}': 1}
    assert shown(metrics, "mailbox_depth") == {'{kind="chat"}': 4}
    assert shown(metrics, "executions_active") == {"": 0}


def test_crashes_and_restarts_are_counted_by_kind() -> None:
    """Every other record by its event."""
    metrics = Metrics()
    for event in ("actor_started", "actor_crashed", "actor_restarted"):
        metrics.supervised(event, "hub")

    assert shown(metrics, "actor_crashes_total") == {'{kind="hub"}': 1}
    assert shown(metrics, "actor_restarts_total") == {'{kind="hub"}': 1}
    assert len(shown(metrics, "supervision_events_total")) == 3


def test_a_slow_reader_is_counted_and_gone() -> None:
    """As one that was closed."""
    metrics = Metrics()
    for slow in (True, False):
        metrics.socket_opened()
        metrics.socket_closed(slow=slow)

    assert shown(metrics, "ws_slow_consumer_closes_total") == {"": 1}
    assert shown(metrics, "ws_connections") == {"": 0}
