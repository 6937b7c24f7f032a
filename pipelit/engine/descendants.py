"""What the descendants of a run add to its summary. Contract: engine.md §9.2."""

import msgspec

from pipelit.engine.outcome import Usage


class Descendants(msgspec.Struct, frozen=True):
    """How many child executions a run has, theirs included, and what they used together."""

    count: int = 0
    usage: Usage = Usage()
