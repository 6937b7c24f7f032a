"""`pipelit serve` before the tree starts: flags, directory, greeting."""

import stat
from pathlib import Path

import pytest

from pipelit.cli.serve import _greet, _prepare_directory, serve
from pipelit.settings import Settings


def test_every_setting_is_a_flag() -> None:
    """The flag is the name in lower case with hyphens; DIR is --data-dir."""
    flags = {option for param in serve.params for option in param.opts}

    assert flags == {f"--{field.replace('_', '-')}" for field in Settings.model_fields}


def test_the_help_shows_the_defaults() -> None:
    """As a person writes them; an empty one is not shown, a secret has none."""
    told = {param.name: getattr(param, "help", "") for param in serve.params}

    assert told["port"].endswith("[PIPELIT_PORT, default 8000]")
    assert told["cors_allow_all_origins"].endswith("default false]")
    assert told["metrics_token"].endswith("[PIPELIT_METRICS_TOKEN]")
    assert not any("Undefined" in text or "default ]" in text for text in told.values())


def test_the_first_start_makes_the_data_directory_for_its_owner_only(tmp_path: Path) -> None:
    """Mode 0700; the start after it is not the first."""
    settings = Settings(data_dir=tmp_path / "a" / "b")

    assert _prepare_directory(settings)
    assert stat.S_IMODE(settings.data_dir.stat().st_mode) == 0o700
    (settings.data_dir / "db.sqlite3").touch()
    assert not _prepare_directory(settings)


@pytest.mark.parametrize(
    ("port", "hint"),
    [(8000, " setup --username NAME\n"), (81, "NAME --url http://127.0.0.1:81\n")],
)
def test_the_first_start_says_where_the_data_is_and_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], port: int, hint: str
) -> None:
    """On stderr, since stdout may carry JSON log lines."""
    settings = Settings(data_dir=tmp_path)
    _greet(settings, True, f"http://127.0.0.1:{port}")
    first = capsys.readouterr()
    _greet(settings, False, f"http://127.0.0.1:{port}")
    later = capsys.readouterr()

    assert str(tmp_path) in first.err
    assert hint in first.err
    assert first.out == ""
    assert "setup" not in later.err
