"""The login that `pipelit login` remembers: one file, readable by its owner only."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec

from pipelit.cli.client import Target

DEFAULT_URL = "http://localhost:8000"
_LOCALHOST = re.compile(r"://localhost(?=[:/]|$)")


def login_path(environ: Mapping[str, str]) -> Path:
    """Return where the login is kept: the data directory, else the user's configuration."""
    directory = environ.get("PIPELIT_DIR") or click.get_app_dir("pipelit")
    return Path(directory).expanduser() / "login.json"


def save_login(path: Path, target: Target) -> None:
    """Remember *target* in a file of mode 0600 that is replaced in one step."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(target))
    draft.replace(path)


def load_login(path: Path) -> Target | None:
    """Return the remembered login, None if there is none or it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Target)
    except (OSError, msgspec.DecodeError):
        return None


def find_target(url: str | None, key: str | None, environ: Mapping[str, str]) -> Target:
    """Decide which server to talk to: flags, then environment, then the remembered login.

    A remembered key is only ever sent to the server that gave it.
    """
    remembered = load_login(login_path(environ))
    chosen = url or environ.get("PIPELIT_URL") or (remembered and remembered.url) or DEFAULT_URL
    chosen = chosen.rstrip("/")
    if not chosen.startswith(("http://", "https://")):
        raise click.UsageError(f"--url must start with http:// or https://, not '{chosen}'.")
    given = key or environ.get("PIPELIT_API_KEY")
    if not given and remembered and _is_same(remembered.url, chosen):
        given = remembered.key
    return Target(url=chosen, key=given or "")


def _is_same(url: str, other: str) -> bool:
    """Tell whether two addresses are one server; this machine has two names."""
    return _LOCALHOST.sub("://127.0.0.1", url) == _LOCALHOST.sub("://127.0.0.1", other)
