"""`pipelit schedules`: list, show, preview, start, pause, resume.

Contract: operations.md §4, schedules.md.
"""

from typing import Any
from urllib.parse import quote

import click

from pipelit.cli.client import Client, Target
from pipelit.cli.options import call, echo_json, json_option, server_command
from pipelit.cli.table import show_table

STATUSES = ("active", "paused", "done", "dead")


@click.group()
def schedules() -> None:
    """See, start, pause and resume what runs by the clock."""


@schedules.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs in this state.")
@click.option("--limit", type=click.IntRange(0, 1000), default=50, show_default=True)
@json_option
@server_command
def list_schedules(target: Target, status: str | None, limit: int, as_json: bool) -> None:
    """List scheduled jobs, newest first."""

    async def action(client: Client) -> Any:
        return await client.get("/schedules/", status=status, limit=limit)

    page = call(target, action)
    if as_json:
        echo_json(page)
        return
    show_table(
        ("JOB", "NAME", "STATUS", "RUNS", "ERRORS", "RHYTHM", "NEXT (UTC)"),
        [
            (job["id"], job["name"], job["status"], job["run_count"], job["error_count"],
             _rhythm(job), job["next_run_at"])
            for job in page["items"]
        ],
    )  # fmt: skip
    if page["total"] > len(page["items"]):
        click.echo(f"{len(page['items'])} of {page['total']}; more with --limit.", err=True)


@schedules.command()
@click.argument("job_id")
@json_option
@server_command
def show(target: Target, job_id: str, as_json: bool) -> None:
    """Show one job."""

    async def action(client: Client) -> Any:
        return await client.get(_path(job_id))

    job = call(target, action)
    if as_json:
        echo_json(job)
        return
    facts = {
        "job": job["id"],
        "name": job["name"],
        "status": job["status"],
        "rhythm": _rhythm(job),
        "missed times": job["catch_up"],
        "next (UTC)": job["next_run_at"],
        "last (UTC)": job["last_run_at"],
        "runs": job["run_count"],
        "errors": job["error_count"],
        "last error": job["last_error"],
    }
    show_table(("FIELD", "VALUE"), list(facts.items()))


@schedules.command()
@click.argument("job_id")
@click.option("--count", type=click.IntRange(1, 100), default=5, show_default=True)
@json_option
@server_command
def preview(target: Target, job_id: str, count: int, as_json: bool) -> None:
    """List the next nominal times of a job."""

    async def action(client: Client) -> Any:
        return await client.get(_path(job_id) + "preview/", count=count)

    page = call(target, action)
    if as_json:
        echo_json(page)
        return
    show_table(
        ("NOMINAL (UTC)", "LOCAL"),
        [(time["nominal_time"], time["local_time"]) for time in page["items"]],
    )


@schedules.command()
@click.argument("slug")
@click.option("--node", "node_id", metavar="NODE", help="Which trigger; else the first one.")
@json_option
@server_command
def start(target: Target, slug: str, node_id: str | None, as_json: bool) -> None:
    """Start the schedule trigger of a workflow."""

    async def action(client: Client) -> Any:
        path = f"/workflows/{quote(slug, safe='')}/nodes/"
        chosen = node_id or _first_schedule(await client.get(path), slug)
        return await client.post(f"{path}{quote(chosen, safe='')}/schedule/start")

    node = call(target, action)
    if as_json:
        echo_json(node)
        return
    job = node["schedule_job"]
    click.echo(job["id"])
    click.echo(f"{_rhythm(job)}; next: {job['next_run_at']} UTC.", err=True)


def _first_schedule(nodes: list[dict[str, Any]], slug: str) -> str:
    for node in nodes:
        if node["component_type"] == "trigger_schedule":
            return str(node["node_id"])
    raise click.ClickException(f"Workflow '{slug}' has no schedule trigger.")


@schedules.command()
@click.argument("job_id")
@json_option
@server_command
def pause(target: Target, job_id: str, as_json: bool) -> None:
    """Pause an active job; a running execution continues."""
    _act(target, job_id, "pause", as_json=as_json)


@schedules.command()
@click.argument("job_id")
@json_option
@server_command
def resume(target: Target, job_id: str, as_json: bool) -> None:
    """Make a paused job active again, from now on."""
    _act(target, job_id, "resume", as_json=as_json)


def _act(target: Target, job_id: str, action_name: str, *, as_json: bool) -> None:
    async def action(client: Client) -> Any:
        return await client.post(f"{_path(job_id)}{action_name}/")

    job = call(target, action)
    if as_json:
        echo_json(job)
    else:
        click.echo(f"{job['name']} is {job['status']}.")


def _rhythm(job: dict[str, Any]) -> str:
    if job["cron"] is None:
        return f"every {job['interval_seconds']} s"
    return f"{job['cron']} ({job['timezone']})"


def _path(job_id: str) -> str:
    return f"/schedules/{quote(job_id, safe='')}/"
