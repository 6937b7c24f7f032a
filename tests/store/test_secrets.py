"""Field encryption and its key. Contract: settings.md §4."""

import base64
import hashlib
import stat
from pathlib import Path

import pytest

from pipelit.store import SecretUnreadable, StartError
from pipelit.store.secrets import Secrets, find_secrets, new_key

KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
OTHER = base64.urlsafe_b64encode(bytes(range(1, 33))).decode()
KEY_ID = hashlib.sha256(bytes(range(32))).hexdigest()[:8]
OTHER_ID = hashlib.sha256(bytes(range(1, 33))).hexdigest()[:8]


def refuse_to_speak(message: str) -> None:
    raise AssertionError(f"nothing to say expected, got: {message}")


def test_a_secret_comes_back_and_names_its_key() -> None:
    """`encrypt` gives `enc:<key id>:<token>`, different every time; `decrypt` gives the text."""
    secrets = Secrets(KEY)

    stored = secrets.encrypt("sk-é")

    assert stored.startswith(f"enc:{KEY_ID}:")
    assert "sk-" not in stored
    assert secrets.encrypt("sk-é") != stored
    assert secrets.decrypt(stored) == "sk-é"


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (Secrets(OTHER).encrypt("a"), f"encrypted with key {OTHER_ID}, not {KEY_ID}"),
        ("plain text", "encrypted with key unknown"),
        (f"enc:{KEY_ID}:abc", "damaged"),
    ],
)
def test_what_this_key_did_not_make_is_unreadable(stored: str, reason: str) -> None:
    """Foreign, plain and damaged values are told apart and never returned."""
    with pytest.raises(SecretUnreadable, match=reason):
        Secrets(KEY).decrypt(stored)


def test_the_key_is_in_no_representation() -> None:
    """Neither `repr` nor the attributes anyone would log show the key."""
    assert repr(Secrets(KEY)) == f"Secrets(key_id='{KEY_ID}')"


def test_the_setting_wins_and_the_file_is_left_alone(tmp_path: Path) -> None:
    """With `FIELD_ENCRYPTION_KEY` the key file is neither read nor written."""
    secrets = find_secrets(KEY, tmp_path / "encryption.key", None, say=refuse_to_speak)

    assert secrets.key_id == KEY_ID
    assert list(tmp_path.iterdir()) == []


def test_the_first_start_creates_a_key_file(tmp_path: Path) -> None:
    """Without any key a new one is written with mode 0600, said, and found at the next start."""
    path = tmp_path / "encryption.key"
    said: list[str] = []

    first = find_secrets(None, path, None, say=said.append)
    second = find_secrets("", path, first.check_value(), say=refuse_to_speak)

    assert second.key_id == first.key_id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert said == [
        f"Created encryption key {path}. Back it up: without it stored secrets cannot be read."
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["encryption.key"]


def test_a_key_file_others_can_read_is_warned_about(tmp_path: Path) -> None:
    """A readable key file is used, with one warning."""
    path = tmp_path / "encryption.key"
    path.write_text(KEY)
    path.chmod(0o640)
    said: list[str] = []

    secrets = find_secrets(None, path, None, say=said.append)

    assert secrets.key_id == KEY_ID
    assert said == [f"Others can read the encryption key {path}: set its mode to 0600."]


def test_a_missing_key_is_never_replaced(tmp_path: Path) -> None:
    """A database with a check value does not start without its key, and no key file appears."""
    path = tmp_path / "encryption.key"

    with pytest.raises(StartError) as caught:
        find_secrets(None, path, Secrets(KEY).check_value(), say=refuse_to_speak)

    assert str(caught.value) == (
        f"Encryption key missing: this database was encrypted with key {KEY_ID}. "
        f"Set FIELD_ENCRYPTION_KEY or restore {path}."
    )
    assert not path.exists()


def test_a_wrong_key_is_refused(tmp_path: Path) -> None:
    """A key that does not fit the check value is named beside the one that would."""
    with pytest.raises(StartError) as caught:
        find_secrets(OTHER, tmp_path / "k", Secrets(KEY).check_value(), say=refuse_to_speak)

    assert str(caught.value) == (
        f"Wrong encryption key: this database was encrypted with key {KEY_ID}, "
        f"the given key is {OTHER_ID}."
    )


@pytest.mark.parametrize(
    "key", ["short", KEY[:-1], KEY + "A", KEY.replace("_", "/")[:-2] + "+=", "é" * 44, "A" * 44]
)
def test_what_is_no_key_is_refused(tmp_path: Path, key: str) -> None:
    """Anything but 44 characters of URL-safe base64 for 32 bytes is refused, never repeated."""
    with pytest.raises(StartError, match=r"^FIELD_ENCRYPTION_KEY is not a valid key\.$"):
        find_secrets(key, tmp_path / "k", None, say=refuse_to_speak)


def test_new_keys_are_valid_and_differ() -> None:
    """Every new key is a key, and another one."""
    assert Secrets(new_key()).key_id != Secrets(new_key()).key_id
