"""Values of workspace variables never show. Contract: engine.md §29.4."""

from hypothesis import given
from hypothesis import strategies as st

from pipelit.nodes.masking import HIDDEN, Mask


def test_the_longest_secret_is_hidden_first() -> None:
    """One that contains another leaves nothing of itself."""
    assert Mask(["ab", "abc"]).text(b"xabcx ab", 100) == f"x{HIDDEN}x {HIDDEN}"


def test_a_secret_across_the_limit_is_hidden_too() -> None:
    """Not even its beginning is shown."""
    mask = Mask(["secret"])

    assert mask.longest == 6
    assert mask.text(b"12345secret", 8) == "12345***"


def test_texts_keys_and_numbers_of_json_are_searched() -> None:
    """Values that are no secret stay what they are."""
    mask = Mask(["key1", "12345", 'a"b'])
    value = {"key1": [12345, 1.5, True, None, 'say a"b'], "x": 'a\\"b'}

    assert mask.json(value) == {HIDDEN: [HIDDEN, 1.5, True, None, f"say {HIDDEN}"], "x": HIDDEN}


def test_without_secrets_texts_stay_but_for_nul() -> None:
    """An empty value hides nothing; what is no UTF-8, and NUL, are replaced."""
    mask = Mask([""])

    assert mask.text(b"a\0\xff", 100) == "a\ufffd\ufffd"
    assert mask.json({"a": "b\0"}) == {"a": "b\ufffd"}


@given(
    secrets=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4),
    text=st.text("abc ", max_size=40),
    limit=st.integers(0, 40),
)
def test_no_text_shows_a_secret(secrets: list[str], text: str, limit: int) -> None:
    """Whatever the secrets have in common, and wherever the output is cut."""
    mask = Mask(secrets)
    shown = mask.text(text.encode()[: limit + mask.longest], limit)

    assert len(shown) <= limit
    assert not any(secret in shown for secret in secrets)
