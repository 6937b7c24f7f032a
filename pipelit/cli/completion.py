"""`pipelit completion`: the script that completes commands in a shell."""

import click
from click.shell_completion import get_completion_class

VARIABLE = "_PIPELIT_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    Bash: `source <(pipelit completion bash)` in ~/.bashrc. Zsh: the same in ~/.zshrc.
    Fish: `pipelit completion fish > ~/.config/fish/completions/pipelit.fish`.
    """
    from pipelit.cli.app import program  # the group of which this is a command

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"No completion for {shell}.")
    click.echo(kind(program, {}, "pipelit", VARIABLE).source())
