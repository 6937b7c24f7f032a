"""What people may read of errors that nobody planned."""

from sqlalchemy.exc import IntegrityError

from pipelit.errors import public_text


def test_the_words_of_a_database_stay_inside() -> None:
    """They name statements, hosts and files."""
    error = IntegrityError("INSERT INTO users (secret) VALUES (?)", ("x",), Exception("at db.host"))

    assert public_text(error) == "internal error (IntegrityError)"


def test_an_error_without_words_is_named() -> None:
    """An empty message would say nothing."""
    assert public_text(KeyError()) == "KeyError"
