"""Pipelit: a self-hosted server for LLM workflows whose every run is a supervised actor."""

__version__ = "0.1.0"
