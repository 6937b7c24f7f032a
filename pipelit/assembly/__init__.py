"""Builds a server's parts from its settings. Beside `pipelit.tree` the only place that wires."""
