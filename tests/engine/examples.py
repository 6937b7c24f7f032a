"""How many examples the expensive properties try: few at each commit, more when asked.

`PROPERTY_SCALE=50 pytest tests/engine` tries fifty times as many.
"""

import os

from hypothesis import HealthCheck, settings

SCALE = int(os.environ.get("PROPERTY_SCALE", "1"))


def many(count: int) -> settings:
    """Return the settings of a property that is tried *count* times, or a multiple of it."""
    return settings(
        max_examples=count * SCALE, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
