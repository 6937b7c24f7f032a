"""Instants as text, in a layer that knows no clock."""

from datetime import UTC, datetime


def instant_text(timestamp: float) -> str:
    """Format Unix seconds as the contract shows instants (README.md §6)."""
    return datetime.fromtimestamp(timestamp, UTC).replace(tzinfo=None).isoformat()
