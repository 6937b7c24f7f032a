"""`pipelit setup` and `pipelit login`. Contract: auth.md, operations.md §4."""

import os
import sys

import click

from pipelit.cli.client import Client, Target
from pipelit.cli.options import call_anonymously, program_name, server_command
from pipelit.cli.remember import login_path, save_login

LOGIN = "/auth/token/"


@click.command()
@click.option("--username", required=True, help="Name of the first administrator.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@server_command
def setup(target: Target, username: str, password_stdin: bool) -> None:
    """Make the first administrator and print the API key, once."""
    password = _read_password(from_stdin=password_stdin, confirm=True)

    async def action(client: Client) -> str:
        body = {"username": username, "password": password}
        return str((await client.post("/auth/setup/", body))["key"])

    key = call_anonymously(target, action)
    click.echo(key)
    _remember(target, key)
    click.echo(f"This key is shown only once. Next: `{program_name()} workflow list`", err=True)


@click.command()
@click.option("--username", prompt=True, help="Your name on the server.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@server_command
def login(target: Target, username: str, password_stdin: bool) -> None:
    """Log in with name and password, and remember the key.

    A code is asked for if your account needs one.
    """
    password = _read_password(from_stdin=password_stdin, confirm=False)

    async def first_step(client: Client) -> tuple[str, bool]:
        answer = await client.post(LOGIN, {"username": username, "password": password})
        return str(answer["key"]), bool(answer["requires_mfa"])

    key, needs_code = call_anonymously(target, first_step)
    if needs_code:
        code = click.prompt("Code of your authenticator app", err=True).strip()

        async def second_step(client: Client) -> str:
            body = {"username": username, "code": code}
            return str((await client.post("/auth/mfa/login-verify/", body))["key"])

        key = call_anonymously(target, second_step)
    _remember(target, key)


def _read_password(*, from_stdin: bool, confirm: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise click.UsageError("--password-stdin: standard input holds no password.")
        return password
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True))


def _remember(target: Target, key: str) -> None:
    path = login_path(os.environ)
    save_login(path, Target(url=target.url, key=key))
    click.echo(f"Logged in at {target.url}; remembered in {path}.", err=True)
