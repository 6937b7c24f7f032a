"""`pipelit db`: upgrade, backup, check. Contract: operations.md §4."""

import sys
from pathlib import Path

import click

from pipelit.cli.offline import settings_command
from pipelit.cli.options import echo_json
from pipelit.cli.table import show_table
from pipelit.settings import Settings

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group()
def db() -> None:
    """Migrate, back up and check the database."""


@db.command()
@json_option
@settings_command
def upgrade(settings: Settings, as_json: bool) -> None:
    """Bring the database to this version, as the server does when it starts."""
    from pipelit.services import maintenance  # the whole store, which other commands do not need

    done = maintenance.upgrade(settings, lambda text: click.echo(text, err=True))
    if as_json:
        echo_json(done)
    elif done.before == done.after:
        click.echo(f"The database is of this version already (revision {done.after}).")
    else:
        click.echo(f"The database is at revision {done.after} now.")


@db.command()
@click.option(
    "--to",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; else a new one in backups/ of the data directory.",
)
@json_option
@settings_command
def backup(settings: Settings, target: Path | None, as_json: bool) -> None:
    """Copy the database while the server runs.

    The encryption key is not in the copy: keep it apart, the copy cannot be used without it.
    """
    from pipelit.services import maintenance

    done = maintenance.back_up(settings, target)
    if as_json:
        echo_json(done)
        return
    click.echo(done.path)
    click.echo(
        f"{done.bytes} bytes. Check it: `pipelit db check`, see docs/operators.md.", err=True
    )


@db.command()
@json_option
@settings_command
def check(settings: Settings, as_json: bool) -> None:
    """Look whether the database is sound; exit code 1 if it is not. Changes nothing."""
    from pipelit.services import maintenance

    findings = maintenance.check(settings)
    if as_json:
        echo_json(findings)
    else:
        show_table(("CHECK", "STATUS", "DETAIL"), [(f.check, f.status, f.detail) for f in findings])
    if any(finding.status == "failed" for finding in findings):
        sys.exit(1)
