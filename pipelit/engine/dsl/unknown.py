"""Keys nobody reads: said as warnings, for they are mostly slips of the pen."""

from collections.abc import Collection
from difflib import get_close_matches

MAX_TOLD = 50
"""Unknown keys of one document that are told one by one."""

MORE = "More unknown keys are ignored"
_SHOWN = 100


def unknown_key(where: str, key: str, known: Collection[str]) -> str:
    """Word the warning for a key that is not *known*, with what was perhaps meant.

    Args:
        where: what has the key, as it begins the sentence; "" for the document itself.
    """
    close = get_close_matches(key[:_SHOWN], sorted(known), n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    subject = f"{where}: unknown" if where else "Unknown"
    return f"{subject} key '{key[:_SHOWN]}' is ignored{hint}"
