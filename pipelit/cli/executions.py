"""`pipelit executions`: list, show, cancel, retry, resume, watch.

Contract: operations.md §4, executions.md, beyond.md §3.
"""

import sys
from datetime import datetime
from typing import Any
from urllib.parse import quote

import click

from pipelit.cli import INTERRUPTED
from pipelit.cli.client import Client, Target
from pipelit.cli.options import call, echo_json, events_option, json_option, server_command
from pipelit.cli.render import answer_text, clean, duration
from pipelit.cli.table import show_table

STATUSES = ("pending", "running", "interrupted", "completed", "failed", "cancelled")


@click.group()
def executions() -> None:
    """See, stop, repeat and answer the runs of workflows."""


@executions.command("list")
@click.option("--workflow", "workflow_slug", metavar="SLUG", help="Only runs of this workflow.")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs in this state.")
@click.option("--limit", type=click.IntRange(0, 1000), default=20, show_default=True)
@json_option
@server_command
def list_executions(
    target: Target, workflow_slug: str | None, status: str | None, limit: int, as_json: bool
) -> None:
    """List runs, newest first."""

    async def action(client: Client) -> Any:
        return await client.get(
            "/executions/", workflow_slug=workflow_slug, status=status, limit=limit
        )

    page = call(target, action)
    if as_json:
        echo_json(page)
        return
    show_table(
        ("EXECUTION", "WORKFLOW", "STATUS", "TOOK", "TOKENS"),
        [
            (one["execution_id"], one["workflow_slug"], one["status"], _took(one),
             one["total_tokens"])
            for one in page["items"]
        ],
    )  # fmt: skip
    if page["total"] > len(page["items"]):
        click.echo(f"{len(page['items'])} of {page['total']}; more with --limit.", err=True)


@executions.command()
@click.argument("execution_id")
@json_option
@server_command
def show(target: Target, execution_id: str, as_json: bool) -> None:
    """Show one run with the log of its nodes."""

    async def action(client: Client) -> Any:
        return await client.get(_path(execution_id))

    detail = call(target, action)
    if as_json:
        echo_json(detail)
        return
    facts = {
        "execution": detail["execution_id"],
        "workflow": detail["workflow_slug"],
        "status": detail["status"],
        "error": detail["error_message"],
        "started": detail["started_at"],
        "took": _took(detail),
        "tokens": detail["total_tokens"],
        "cost": f"${detail['total_cost_usd']:.6f}",
        "reply": answer_text(detail["final_output"]),
    }
    show_table(("FIELD", "VALUE"), list(facts.items()))
    click.echo()
    show_table(
        ("NODE", "STATUS", "TOOK", "ERROR"),
        [
            (log["node_id"], log["status"], duration(log["duration_ms"]), log["error"])
            for log in detail["logs"]
        ],
    )
    for question in detail["pending_confirmations"]:
        click.echo(f"Waits for an answer to {question['task_id']}: {clean(question['prompt'])}")
        click.echo(f"Answer: `pipelit executions resume {detail['execution_id']} yes`", err=True)


@executions.command()
@click.argument("execution_id")
@json_option
@server_command
def cancel(target: Target, execution_id: str, as_json: bool) -> None:
    """Stop a run; what it started is stopped when this returns."""
    _act(target, execution_id, "cancel", {}, as_json=as_json)


@executions.command()
@click.argument("execution_id")
@click.option("--from", "from_node", metavar="NODE", help="Run this node and what follows again.")
@click.option("--current", is_flag=True, help="With the workflow as it is today.")
@json_option
@server_command
def retry(
    target: Target, execution_id: str, from_node: str | None, current: bool, as_json: bool
) -> None:
    """Run what failed or was cancelled again, as a new run.

    What had finished is taken over, neither run nor billed again.
    """
    body = {"from_node": from_node, "graph": "current" if current else "snapshot"}

    async def action(client: Client) -> Any:
        return await client.post(_path(execution_id) + "retry/", body)

    execution = call(target, action)
    if as_json:
        echo_json(execution)
        return
    new_id = execution["execution_id"]
    click.echo(new_id)
    click.echo(f"Started. Next: `pipelit executions watch {new_id}`", err=True)


@executions.command()
@click.argument("execution_id")
@click.argument("answer")
@click.option("--task", "task_id", metavar="ID", help="Which question; else the oldest open one.")
@json_option
@server_command
def resume(
    target: Target, execution_id: str, answer: str, task_id: str | None, as_json: bool
) -> None:
    """Answer the question a run waits with, mostly 'yes' or 'no'."""
    _act(target, execution_id, "resume", {"input": answer, "task_id": task_id}, as_json=as_json)


def _act(
    target: Target, execution_id: str, verb: str, body: dict[str, Any], *, as_json: bool
) -> None:
    async def action(client: Client) -> Any:
        return await client.post(f"{_path(execution_id)}{verb}/", body)

    execution = call(target, action)
    if as_json:
        echo_json(execution)
    else:
        click.echo(f"{execution['execution_id']} is {execution['status']}.")


@executions.command()
@click.argument("execution_id")
@events_option
@server_command
def watch(target: Target, execution_id: str, as_json: bool) -> None:
    """Replay a run from its first event, then follow it live.

    A lost connection is opened again; nothing is missed.
    """
    from pipelit.cli.screen import Screen  # draws with rich, which no other command here needs

    async def action(client: Client) -> None:
        # An unknown execution has no events and no end: ask for it first.
        detail = await client.get(_path(execution_id))
        await Screen(as_json=as_json).watch(client, detail["execution_id"])

    try:
        call(target, action)
    except KeyboardInterrupt:
        click.echo("Stopped watching; the execution goes on.", err=True)
        sys.exit(INTERRUPTED)


def _path(execution_id: str) -> str:
    return f"/executions/{quote(execution_id, safe='')}/"


def _took(execution: dict[str, Any]) -> str | None:
    started, ended = execution["started_at"], execution["completed_at"]
    if not started or not ended:
        return None
    span = datetime.fromisoformat(ended) - datetime.fromisoformat(started)
    return duration(span.total_seconds() * 1000)
