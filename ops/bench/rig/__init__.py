"""What the benchmarks of the server share: the server's process, cheap clients, figures.

Clients are made by hand on plain sockets: a full HTTP client costs more processor time per request
than the server it is to measure, and both share the machine.
"""
