"""Keys nobody reads: said as warnings, for they are mostly slips of the pen."""

from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches

_SHOWN = 100


def unknown_keys(where: str, keys: Iterable[str], known: Collection[str]) -> Iterator[str]:
    """Yield a warning for each of *keys* that is not *known*, with what was perhaps meant.

    Args:
        where: what has the keys, as it begins the sentence; "" for the document itself.
    """
    for key in keys:
        if key not in known:
            close = get_close_matches(key, sorted(known), n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            subject = f"{where}: unknown" if where else "Unknown"
            yield f"{subject} key '{key[:_SHOWN]}' is ignored{hint}"
