"""Rows for people: a table on a terminal, aligned plain lines in a pipe."""

import sys
from collections.abc import Sequence

import click

from pipelit.cli.render import clean


def show_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows. The first column is never cut, since people copy it; others may be folded."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        _show_plain(headers, cells)
        return
    # Imported here because nothing but a terminal needs it.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, header in enumerate(headers):
        table.add_column(header, no_wrap=number == 0, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)


def _show_plain(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [list(headers), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _cell(value: object) -> str:
    return "-" if value in (None, "") else " ".join(clean(str(value)).split())
