"""Hides the values of workspace variables in what processes say. Contract: engine.md §29.4."""

import json
from collections.abc import Iterable
from typing import Any

HIDDEN = "****"


class Mask:
    """Replaces secrets by `****`.

    Args:
        secrets: values to hide; empty ones hide nothing.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first: one may contain another. As JSON text a value may look different.
        forms = {form for secret in secrets if secret for form in (secret, _in_json(secret))}
        self._secrets = sorted(forms, key=len, reverse=True)
        self.longest = max((len(form.encode()) for form in forms), default=0)

    def text(self, raw: bytes, limit: int) -> str:
        """Return the first *limit* bytes of an output as text, secrets hidden.

        *raw* goes on for `longest` bytes behind the limit, if there was more: a secret that the
        limit would cut in two is recognised all the same.
        """
        for secret in self._secrets:
            raw = raw.replace(secret.encode(), HIDDEN.encode())
        # No text of the product has a NUL, and not every database could store one.
        return raw[:limit].decode(errors="replace").replace("\0", "\ufffd")

    def json(self, value: Any) -> Any:
        """Return a JSON value with the secrets in its texts, keys and numbers hidden."""
        if isinstance(value, dict):
            return {self._hide(key): self.json(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(inner) for inner in value]
        if isinstance(value, str):
            return self._hide(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            text = json.dumps(value)
            hidden = self._hide(text)
            return value if hidden == text else hidden
        return value

    def _hide(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text.replace("\0", "\ufffd")


def _in_json(secret: str) -> str:
    return json.dumps(secret, ensure_ascii=False)[1:-1]
