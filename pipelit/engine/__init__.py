"""The pure core: graph, validation, routing, expressions. No I/O, no clock, no concurrency."""
