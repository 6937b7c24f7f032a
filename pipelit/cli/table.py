"""Rows for people: a table on a terminal, aligned plain lines in a pipe."""

import sys
from collections.abc import Sequence

import click

from pipelit.cli.render import clean

GAP = 3
"""Between two columns on a terminal."""


def show_table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, dispensable: int = 0
) -> None:
    """Print rows. The first column is never cut, since people copy it; others may be folded.

    `dispensable`: so many of the last columns are left out on a terminal too narrow for them.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        _show_plain(headers, cells)
        return
    # Imported here because nothing but a terminal needs it.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    count = columns_that_fit(headers, cells, dispensable, console.width)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, header in enumerate(headers[:count]):
        table.add_column(header, no_wrap=number == 0, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row[:count]))
    console.print(table)


def columns_that_fit(
    headers: Sequence[str], rows: Sequence[Sequence[str]], dispensable: int, width: int
) -> int:
    """Return how many columns to show in *width* characters without folding, if possible."""
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    fewest = len(headers) - dispensable
    fitting = (
        count
        for count in range(len(headers), fewest, -1)
        if sum(widths[:count]) + GAP * (count - 1) <= width
    )
    return next(fitting, fewest)


def _show_plain(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [list(headers), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _cell(value: object) -> str:
    return "-" if value in (None, "") else " ".join(clean(str(value)).split())
