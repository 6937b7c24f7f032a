"""The `pipelit` program: the server's start and a client of its API."""

from pipelit.cli.app import main

__all__ = ["main"]
