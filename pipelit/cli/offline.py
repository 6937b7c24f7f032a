"""What the commands share that work on the data directory itself, without a server."""

import functools
import os
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import click

from pipelit.errors import PipelitError
from pipelit.settings import Settings, load_settings

T = TypeVar("T")
P = ParamSpec("P")


class RefusedError(click.ClickException):
    """It cannot be done: one sentence on stderr, exit code 1."""


def settings_command(function: Callable[Concatenate[Settings, P], T]) -> Callable[P, T]:
    """Give a command `--data-dir` and hand it the settings that the server would have."""

    @click.option("--data-dir", metavar="DIR", help="Data directory; else PIPELIT_DIR.")
    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> T:
        directory = kwargs.pop("data_dir")
        flags = {"data_dir": str(directory)} if directory else {}
        try:
            return function(load_settings(flags, os.environ), *args, **kwargs)
        except PipelitError as error:
            raise RefusedError(str(error)) from None
        except OSError as error:
            raise RefusedError(f"Cannot use {error.filename}: {error.strerror}.") from None

    return command
