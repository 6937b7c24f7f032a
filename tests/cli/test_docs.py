"""The documents name commands that exist, and every command is documented."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipelit.cli.app import program

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = ("README.md", "docs/tutorial.md", "docs/operators.md", "docs/how-to.md", "docs/api.md")
HEADER = re.compile(r"^#(?: +\w+:)? +pipelit (.+?)(?: {3,}.*)?$", re.MULTILINE)
FENCE = re.compile(r"^```(?:sh|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def written_commands() -> Iterator[tuple[str, str]]:
    """Yield (document, arguments) of every `pipelit …` line in a fence."""
    for name in DOCUMENTS:
        for block in FENCE.findall((ROOT / name).read_text()):
            for line in block.splitlines():
                found = re.fullmatch(r"(?:PIPELIT_\S+ )*(?:\.venv/bin/)?pipelit (.+?)(?: &)?", line)
                if found:
                    yield name, found[1]
    for file in (ROOT / "examples").glob("*.yaml"):
        for arguments in HEADER.findall(file.read_text()):
            yield f"examples/{file.name}", arguments


def leaves(command: click.Command, path: str = "") -> Iterator[str]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from leaves(child, f"{path} {name}".strip())
    else:
        yield path


@pytest.mark.parametrize(("document", "arguments"), sorted(set(written_commands())))
def test_a_written_command_is_one_the_program_takes(document: str, arguments: str) -> None:
    """Names, options and arguments are right; nothing is run."""
    words = shlex.split(arguments)
    command: click.Command = program
    context = click.Context(program)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, f"{document}: {arguments}"
        command = found
    command.make_context("pipelit", words)


def test_the_documents_show_the_commands_of_the_first_minute() -> None:
    """Whoever follows them sees a run, a cancel and a crash."""
    shown = {arguments.split()[0] for _, arguments in written_commands()}

    assert shown >= {"chat", "executions", "serve", "setup", "workflow"}


def test_every_command_says_what_it_does() -> None:
    """`--help` is never empty, and commands of the contract are there."""
    names = set(leaves(program))

    assert names == {
        "serve", "setup", "login", "chat", "run", "demo",
        "workflow list", "workflow show", "workflow create", "workflow validate",
        "workflow import", "workflow export", "workflow delete",
        "executions list", "executions show", "executions cancel", "executions watch",
        "executions retry", "executions resume",
        "schedules list", "schedules show", "schedules preview", "schedules pause",
        "schedules start", "schedules resume",
        "actors", "top", "logs", "db upgrade", "db backup", "db check", "keys rotate",
        "completion",
    }  # fmt: skip


def test_every_make_target_of_the_documents_exists() -> None:
    """And every target is explained to those who contribute."""
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    explained = set(re.findall(r"`make ([a-z]+)`", (ROOT / "CONTRIBUTING.md").read_text()))
    named = {
        name
        for document in DOCUMENTS
        for name in re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / document).read_text(), re.M)
    }

    assert explained == targets
    assert named <= targets


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, "ARCHITECTURE.md", "CONTRIBUTING.md", "examples/README.md"]
)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    """A relative link names a file of the repository."""
    source = ROOT / document
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", source.read_text()):
        assert (source.parent / link).exists(), link


def test_the_architecture_names_packages_that_exist() -> None:
    """Each box of the picture can be opened."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for path in re.findall(r"`(pipelit/[a-z_/]*(?:\.py)?)`", text):
        assert (ROOT / path).exists(), path


def test_every_example_is_listed_and_explained() -> None:
    """With a header that says how to make it."""
    listed = (ROOT / "examples" / "README.md").read_text()
    for file in (ROOT / "examples").glob("*.yaml"):
        assert f"]({file.name})" in listed
        assert f"pipelit workflow create examples/{file.name}" in file.read_text()
