"""`python -m pipelit` is the command line."""

from pipelit.cli import main

main(prog_name="pipelit")
