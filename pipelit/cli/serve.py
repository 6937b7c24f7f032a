"""`pipelit serve`: read the settings, set up logging, start the tree. Contract: operations.md."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import IO, Any

import click
import structlog

from pipelit.actors.runtime import get_log_context
from pipelit.cli.options import program_name
from pipelit.cli.running import run_trio
from pipelit.logs import configure_logging
from pipelit.settings import Settings, SettingsError, load_settings, unknown_variables, variable


class StartError(click.ClickException):
    """The server does not start: one sentence on stderr, exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the sentence as the contract words it, without anything in front."""
        click.echo(self.message, err=True, file=file)


def _with_setting_flags(command: click.Command) -> click.Command:
    """Give the command one flag per setting; values are checked by `load_settings` alone."""
    for field, info in Settings.model_fields.items():
        flag = "--" + field.replace("_", "-")
        word = "" if info.default_factory else _word(info.default)
        default = f", default {word}" if word else ""
        help_text = f"{info.description} [{variable(field)}{default}]"
        command.params.append(click.Option([flag, field], metavar="VALUE", help=help_text))
    return command


def _word(default: object) -> str:
    """Return a default as a person writes it; nothing for what is empty."""
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple | frozenset):
        return ",".join(map(str, default))
    return str(default)


def _serve(**flags: str | None) -> None:
    """Start the server; each setting is a flag or a variable."""
    try:
        settings = load_settings(flags, os.environ)
        is_first = _prepare_directory(settings)
        configure_logging(
            level=settings.log_level,
            log_format=settings.log_format,
            log_file=settings.log_file,
            context=get_log_context,
        )
    except SettingsError as error:
        raise StartError(str(error)) from None
    except OSError as error:
        raise StartError(f"Cannot use {error.filename}: {error.strerror}.") from None
    for name in unknown_variables(os.environ):
        structlog.get_logger("pipelit").warning("unknown_setting", name=name)
    # Imported here because the tree loads the whole server, about a second that no other command
    # should pay for.
    from pipelit.tree import serve as run_tree

    sys.exit(run_trio(run_tree, settings, partial(_greet, settings, is_first)))


serve = _with_setting_flags(click.command("serve")(_serve))


def _prepare_directory(settings: Settings) -> bool:
    """Make the data directory, mode 0700; tell whether this is the first start."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    scheme, _, path = settings.database_url.partition("://")
    if scheme.startswith("sqlite"):
        return not Path(path.removeprefix("/")).exists()
    return not (settings.data_dir / "encryption.key").exists()


def _greet(settings: Settings, is_first: bool, url: str) -> None:
    """Say where the server is and what to do next. On stderr: stdout may carry JSON log lines."""
    lines = [f"Pipelit is ready: {url}", f"Its data is in {settings.data_dir}."]
    if is_first:
        program = program_name()
        option = "" if url.endswith(":8000") else f" --url {url}"
        lines += [
            "This is the first start. Make the first account in another terminal:",
            f"    {program} setup --username NAME{option}",
            "No account at a model provider? See it run with a scripted model:",
            f"    {program} demo",
        ]
    click.echo("\n".join(lines), err=True)
