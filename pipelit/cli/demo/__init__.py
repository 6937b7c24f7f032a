"""`pipelit demo`: the real server with a scripted model, on a stage that is cleared afterwards."""

from pipelit.cli.demo.command import demo

__all__ = ["demo"]
