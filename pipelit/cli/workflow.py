"""`pipelit workflow`: list, show, create, validate, delete. Contract: operations.md §4."""

import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from pipelit.cli.client import Client, ServerRefusedError, Target
from pipelit.cli.options import call, echo_json, json_option, server_command
from pipelit.cli.table import show_table


@click.group()
def workflow() -> None:
    """See, make and remove workflows."""


@workflow.command("list")
@click.option("--limit", type=click.IntRange(0, 1000), default=50, show_default=True)
@json_option
@server_command
def list_workflows(target: Target, limit: int, as_json: bool) -> None:
    """List your workflows."""

    async def action(client: Client) -> Any:
        return await client.get("/workflows/", limit=limit)

    page = call(target, action)
    if as_json:
        echo_json(page)
        return
    show_table(
        ("SLUG", "NAME", "NODES", "ACTIVE", "PUBLIC"),
        [
            (one["slug"], one["name"], one["node_count"], one["is_active"], one["is_public"])
            for one in page["items"]
        ],
    )
    if not page["items"]:
        click.echo("No workflows yet. Make one: `pipelit workflow create FILE`", err=True)


@workflow.command()
@click.argument("slug")
@json_option
@server_command
def show(target: Target, slug: str, as_json: bool) -> None:
    """Show one workflow with its nodes and edges."""

    async def action(client: Client) -> Any:
        return await client.get(_path(slug))

    detail = call(target, action)
    if as_json:
        echo_json(detail)
        return
    click.echo(f"{detail['name']} ({detail['slug']}) {detail['description']}".rstrip())
    click.echo()
    show_table(
        ("NODE", "TYPE", "LABEL"),
        [(node["node_id"], node["component_type"], node["label"]) for node in detail["nodes"]],
    )
    click.echo()
    show_table(
        ("FROM", "TO", "KIND"),
        [
            (edge["source_node_id"], edge["target_node_id"],
             edge["edge_label"] or edge["condition_value"] or edge["edge_type"])
            for edge in detail["edges"]
        ],
    )  # fmt: skip


@workflow.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@server_command
def create(target: Target, file: str) -> None:
    """Make a workflow from a YAML file ('-': standard input)."""
    # Imported here because the compiler takes longer to load than other commands to run.
    from pipelit.cli.create import create_workflow

    text = _read(file)

    async def action(client: Client) -> Any:
        return await create_workflow(client, text)

    compiled = call(target, action)
    for warning in compiled.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(compiled.slug)
    click.echo(f"Created. Next: `pipelit workflow show {compiled.slug}`", err=True)


@workflow.command()
@click.argument("slug_or_file")
@server_command
def validate(target: Target, slug_or_file: str) -> None:
    """Check a stored workflow, or a YAML file."""
    text = _read(slug_or_file) if Path(slug_or_file).is_file() or slug_or_file == "-" else None

    async def action(client: Client) -> Any:
        if text is None:
            return await client.post(_path(slug_or_file) + "validate/")
        return await client.post("/workflows/validate-dsl/", {"yaml_str": text})

    result = call(target, action)
    for warning in result["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    if not result["valid"]:
        raise ServerRefusedError("\n".join(result["errors"]), status=200)
    click.echo("valid")


@workflow.command()
@click.argument("slug")
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_command
def delete(target: Target, slug: str, yes: bool) -> None:
    """Delete a workflow and cancel its runs; there is no way back."""
    if not yes:
        click.confirm(f"Delete workflow '{slug}' and cancel its runs?", abort=True, err=True)

    async def action(client: Client) -> None:
        await client.delete(_path(slug))

    call(target, action)
    click.echo(f"Deleted {slug}.")


def _path(slug: str) -> str:
    return f"/workflows/{quote(slug, safe='')}/"


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"Cannot read {file}: {error}") from None
