"""Encryption of single stored fields, and the key it needs.

Contract: settings.md §4. The texts raised here are the contract's.
"""

import base64
import hashlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from pipelit.store.errors import SecretUnreadable, StartError

KEY_FILE = "encryption.key"
NEXT_KEY_FILE = "encryption.key.next"
"""The key that a rotation is about to bring; gone when it is over."""
_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")
_STORED = re.compile(r"enc:([0-9a-f]{8}):(.+)", re.DOTALL)
_KNOWN_TEXT = "pipelit"


class Secrets:
    """Encrypts and decrypts text under one key. What it makes tells which key that was.

    Encrypting uses randomness: do it before the unit is queued, not inside.

    Raises:
        ValueError: *key* is not 44 characters of URL-safe base64 for 32 bytes.
    """

    def __init__(self, key: str) -> None:
        if not _KEY.fullmatch(key):
            raise ValueError("not a key")
        self._fernet = Fernet(key)
        self.key_id = hashlib.sha256(base64.urlsafe_b64decode(key)).hexdigest()[:8]
        """The first 8 hex digits of the key's SHA-256; safe to show."""

    def __repr__(self) -> str:
        return f"Secrets(key_id={self.key_id!r})"

    def encrypt(self, text: str) -> str:
        """Return `enc:<key id>:<token>`; never the same twice."""
        return f"enc:{self.key_id}:{self._fernet.encrypt(text.encode()).decode()}"

    def decrypt(self, stored: str) -> str:
        """Return the text that `encrypt` was given.

        Raises:
            SecretUnreadable: another key, or damaged. The message holds neither.
        """
        key_id = encrypting_key_id(stored)
        if key_id != self.key_id:
            raise SecretUnreadable(f"a secret was encrypted with key {key_id}, not {self.key_id}")
        try:
            return self._fernet.decrypt(stored.split(":", 2)[2]).decode()
        except InvalidToken:
            raise SecretUnreadable("a stored secret is damaged") from None

    def check_value(self) -> str:
        """Make the value by which a database knows its key."""
        return self.encrypt(_KNOWN_TEXT)

    def fits(self, check_value: str) -> bool:
        """Tell whether *check_value* was made with this key."""
        try:
            return self.decrypt(check_value) == _KNOWN_TEXT
        except SecretUnreadable:
            return False


def new_key() -> str:
    """Return a random key from the operating system."""
    return Fernet.generate_key().decode()


def encrypting_key_id(stored: str) -> str:
    """Return the id of the key that made *stored*; `unknown` if it is no stored secret."""
    match = _STORED.fullmatch(stored)
    return match[1] if match else "unknown"


def find_secrets(
    setting: str | None, path: Path, check_value: str | None, *, say: Callable[[str], None]
) -> Secrets:
    """Find the key of a database: the setting, else the key file, else a new key file.

    Args:
        setting: `FIELD_ENCRYPTION_KEY`; None or empty when not set.
        path: the key file.
        check_value: what the database knows of its key; None for a database without secrets.
        say: gets notices and warnings for the operator, one sentence each.

    Raises:
        StartError: no key, no valid key, or not this database's key.
    """
    if setting:
        secrets = _parse(setting)
    elif path.exists():
        secrets = _read_key_file(path, check_value)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            say(f"Others can read the encryption key {path}: set its mode to 0600.")
    elif check_value is None:
        secrets = Secrets(_create_key_file(path))
        say(f"Created encryption key {path}. Back it up: without it stored secrets cannot be read.")
    else:
        raise StartError(
            f"Encryption key missing: this database was encrypted with key "
            f"{encrypting_key_id(check_value)}. Set FIELD_ENCRYPTION_KEY or restore {path}."
        )
    if check_value is not None and not secrets.fits(check_value):
        raise StartError(
            f"Wrong encryption key: this database was encrypted with key "
            f"{encrypting_key_id(check_value)}, the given key is {secrets.key_id}."
        )
    return secrets


def _parse(key: str) -> Secrets:
    try:
        return Secrets(key)
    except ValueError:
        raise StartError("FIELD_ENCRYPTION_KEY is not a valid key.") from None


def _read_key_file(path: Path, check_value: str | None) -> Secrets:
    """Read the key; finish a rotation that died between its commit and its last step."""
    secrets = _parse(path.read_text(encoding="ascii", errors="replace").strip())
    if check_value is None or secrets.fits(check_value):
        return secrets
    key = next_key(path.parent)
    if key is None or not Secrets(key).fits(check_value):
        return secrets
    adopt_next_key(path.parent)
    return Secrets(key)


def next_key(directory: Path) -> str | None:
    """Return the key that a rotation left behind, if any.

    Raises:
        StartError: the file is there and holds no key.
    """
    path = directory / NEXT_KEY_FILE
    if not path.exists():
        return None
    key = path.read_text(encoding="ascii", errors="replace").strip()
    _parse(key)
    return key


def write_next_key(directory: Path, key: str) -> None:
    """Keep a new key on disk before anything is encrypted with it."""
    _write_durably(directory / NEXT_KEY_FILE, key)


def adopt_next_key(directory: Path) -> None:
    """Make the new key the key."""
    (directory / NEXT_KEY_FILE).replace(directory / KEY_FILE)
    _sync(directory)


def drop_next_key(directory: Path) -> None:
    """Forget a new key that nothing was encrypted with, or that the operator has."""
    (directory / NEXT_KEY_FILE).unlink(missing_ok=True)


def _create_key_file(path: Path) -> str:
    key = new_key()
    _write_durably(path, key)
    return key


def _write_durably(path: Path, key: str) -> None:
    """Write a key so that a crash leaves either no file or the whole key on disk."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{key}\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
