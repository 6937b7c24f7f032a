"""`pipelit workflow`: list, show, create, import, export, validate, delete.

Contract: operations.md §4.
"""

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
@click.option("--model", metavar="NAME", help="Use this model instead of the document's.")
@json_option
@server_command
def create(target: Target, file: str, model: str | None, as_json: bool) -> None:
    """Make a workflow from a YAML file ('-': standard input)."""
    # Imported here because the compiler takes longer to load than other commands to run.
    from pipelit.cli.create import DocumentError, create_workflow

    text = _read(file)

    async def action(client: Client) -> Any:
        return await create_workflow(client, text, model)

    try:
        made = call(target, action)
    except (DocumentError, ServerRefusedError) as error:
        if as_json:
            echo_json({"success": False, "error": error.message})
        raise
    if as_json:
        echo_json(made)
        return
    for warning in made.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(made.slug)
    click.echo(f"Created. Next: `pipelit workflow show {made.slug}`", err=True)


workflow.add_command(create, "import")


@workflow.command()
@click.argument("slug")
@click.option("--output", "-o", metavar="FILE", help="Write here instead of standard output.")
@server_command
def export(target: Target, slug: str, output: str | None) -> None:
    """Write a workflow as YAML, without its runs and credentials."""
    from pipelit.cli.export import export_workflow  # the compiler, as above

    async def action(client: Client) -> Any:
        return await export_workflow(client, slug)

    exported = call(target, action)
    _write(exported.text, output)
    for error in exported.errors:
        click.echo(f"warning: {error}; `import` would refuse this", err=True)


@workflow.command()
@click.argument("slug_or_file")
@json_option
@server_command
def validate(target: Target, slug_or_file: str, as_json: bool) -> None:
    """Check a stored workflow, or a YAML file."""
    is_file = slug_or_file == "-" or Path(slug_or_file).is_file() or "." in slug_or_file
    text = _read(slug_or_file) if is_file else None  # no slug has a dot

    async def action(client: Client) -> Any:
        if text is None:
            return await client.post(_path(slug_or_file) + "validate/")
        return await client.post("/workflows/validate-dsl/", {"yaml_str": text})

    result = call(target, action)
    if as_json:
        echo_json(result)
        sys.exit(0 if result["valid"] else 1)
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


def _write(text: str, file: str | None) -> None:
    if file is None or file == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"Cannot write {file}: {error.strerror}") from None
