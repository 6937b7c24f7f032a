"""The live side: one WebSocket per client, and the same events as a server-sent stream."""
