"""One case for each component type: what it gives, and what it says when it cannot.

Each is a function of a `World`, named after its type; importing this package lists them all.
"""

from tests.contract.node_cases import ai, flow, platform, triggers, utilities

__all__ = ["ai", "flow", "platform", "triggers", "utilities"]
