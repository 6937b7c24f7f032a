"""`pipelit keys rotate`: a new key for all stored secrets. Contract: operations.md §4."""

import click

from pipelit.cli.offline import settings_command
from pipelit.cli.options import echo_json
from pipelit.settings import Settings


@click.group()
def keys() -> None:
    """Look after the key that stored secrets are encrypted with."""


@keys.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@settings_command
def rotate(settings: Settings, as_json: bool) -> None:
    """Encrypt all stored secrets under a new key. The server must be stopped.

    The new key goes into the key file; if the old one came from FIELD_ENCRYPTION_KEY it is printed
    before anything changes. If this dies half-way, run it again.
    """
    from pipelit.services import maintenance  # the whole store, which other commands do not need

    def reveal(key: str) -> None:
        # On stderr with --json: the JSON has it too, but only if this goes well.
        click.echo(f"PIPELIT_FIELD_ENCRYPTION_KEY={key}", err=as_json)

    done = maintenance.rotate_key(settings, reveal)
    if as_json:
        echo_json(done)
        return
    if done.resumed:
        click.echo("An earlier rotation is finished.", err=True)
    else:
        text = f"{done.secrets} secrets moved from key {done.old_key_id} to {done.new_key_id}."
        click.echo(text, err=True)
    if done.new_key is None:
        click.echo("Back the new key file up, and keep the old key for old backups.", err=True)
    else:
        click.echo("Set the variable to the printed key before the next start.", err=True)
