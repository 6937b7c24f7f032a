"""HTTP and WebSocket: what crosses the process's border, and nothing of what lies behind it."""
