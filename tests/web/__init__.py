"""Tests of the web mechanism, over real sockets."""
