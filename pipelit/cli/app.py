"""The command group. Its commands are imported when they are asked for, to start fast."""

from importlib import import_module

import click

from pipelit import __version__

COMMANDS = {
    "serve": "pipelit.cli.serve",
    "setup": "pipelit.cli.account",
    "login": "pipelit.cli.account",
    "workflow": "pipelit.cli.workflow",
    "chat": "pipelit.cli.chat",
    "run": "pipelit.cli.chat",
    "executions": "pipelit.cli.executions",
    "schedules": "pipelit.cli.schedules",
    "actors": "pipelit.cli.actors",
    "top": "pipelit.cli.top",
    "logs": "pipelit.cli.logs",
    "db": "pipelit.cli.db",
    "keys": "pipelit.cli.keys",
    "completion": "pipelit.cli.completion",
    "demo": "pipelit.cli.demo",
}
"""Command → module that holds it under the same name."""

EXIT_CODES = (
    "Exit codes: 0 success, 1 the server said no, 2 wrong usage, 3 no server, "
    "130 Ctrl-C (1 if that cancelled a run)."
)


class Program(click.Group):
    """A group that imports a command only when it is named, or for the help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return command if isinstance(command, click.Command) else None


@click.group(
    cls=Program,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="pipelit %(version)s")
def program() -> None:
    """Run LLM workflows as supervised actors: start the server, and talk to it."""


def run_program(prog_name: str | None = None) -> int:
    """Run the command that the process was started with and return its exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C, at a prompt or anywhere else.
    """
    try:
        result = program.main(prog_name=prog_name, standalone_mode=False)
    except click.Abort as abort:
        if isinstance(abort.__cause__ or abort.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        click.echo("Aborted.", err=True)  # the answer to a question was no, or the input ended
        return 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return result if isinstance(result, int) else 0
