"""The `pipelit` program: the server's start and a client of its API."""

import signal
import sys
from typing import NoReturn

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count it: 128 + SIGINT."""


def main(prog_name: str | None = None) -> NoReturn:
    """Run the command line and leave with its exit code; Ctrl-C ends it with one line."""
    try:
        # Imported here so that Ctrl-C during the imports ends as quietly as at any later moment.
        from pipelit.cli.app import run_program

        code = run_program(prog_name)
    except KeyboardInterrupt:
        # Another Ctrl-C could only disturb the last line.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("Stopped.", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)
