"""The `pipelit` command. Exit codes: 0 done, 1 the server said no, 2 usage, 3 no server."""

import click

from pipelit import __version__
from pipelit.cli.account import login, setup
from pipelit.cli.chat import chat, run
from pipelit.cli.demo import demo
from pipelit.cli.executions import executions
from pipelit.cli.schedules import schedules
from pipelit.cli.serve import serve
from pipelit.cli.workflow import workflow


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="pipelit %(version)s")
def main() -> None:
    """Run LLM workflows as supervised actors: start the server, and talk to it."""


for command in (serve, setup, login, workflow, chat, run, executions, schedules, demo):
    main.add_command(command)
