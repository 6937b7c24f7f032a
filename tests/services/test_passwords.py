"""Passwords at rest. Contract: auth.md, Passwords and keys."""

import pytest

from pipelit.services.passwords import Passwords

PASSWORDS = Passwords(cost=4)


def test_a_password_fits_its_own_hash_only() -> None:
    """Verifying tells the right password from any other."""
    hashed = PASSWORDS.hash("correct horse")

    assert PASSWORDS.verify("correct horse", hashed)
    assert not PASSWORDS.verify("correct horsf", hashed)


def test_equal_passwords_have_different_hashes() -> None:
    """Every hash has its own salt."""
    assert PASSWORDS.hash("x") != PASSWORDS.hash("x")


@pytest.mark.parametrize("length", [72, 73, 1024])
def test_a_long_password_counts_to_its_last_character(length: int) -> None:
    """The limit of 72 bytes cuts nothing off."""
    password = "ä" * (length - 1)
    hashed = PASSWORDS.hash(password + "a")

    assert PASSWORDS.verify(password + "a", hashed)
    assert not PASSWORDS.verify(password + "b", hashed)


def test_a_user_without_a_password_is_denied_after_the_same_work() -> None:
    """Without a hash a dummy of equal cost is checked, and no password fits it."""
    dummy = PASSWORDS._dummy

    assert not PASSWORDS.verify("anything", None)
    assert dummy.split("$")[:3] == PASSWORDS.hash("x").split("$")[:3]
    assert len(dummy) == len(PASSWORDS.hash("x"))
