"""Settings: where a value comes from, how a bad one is refused, and that secrets stay unseen."""

import json
import re
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from pipelit.settings import (
    ALIASED,
    STORED,
    Settings,
    SettingsError,
    load_settings,
    unknown_variables,
    variable,
)


def load(tmp_path: Path, flags: dict[str, str] | None = None, **environ: str) -> Settings:
    return load_settings(flags or {}, {"PIPELIT_DIR": str(tmp_path), **environ})


def refused(tmp_path: Path, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, **environ)
    return str(caught.value)


def test_without_any_source_the_defaults_of_the_contract_hold(tmp_path: Path) -> None:
    """An empty environment gives every default."""
    settings = load(tmp_path)

    assert settings.host == "127.0.0.1"
    assert settings.port == 8000
    assert settings.database_url == f"sqlite:///{tmp_path}/db.sqlite3"
    assert settings.log_file is None
    assert settings.max_execution_seconds == 900
    assert settings.egress_allow == ()


def test_a_flag_beats_the_variable_the_alias_and_the_stored_value(tmp_path: Path) -> None:
    """First hit wins: flag, variable, alias, settings.json, default."""
    (tmp_path / "settings.json").write_text(json.dumps({"log_level": "CRITICAL"}))

    assert load(tmp_path).log_level == "CRITICAL"
    assert load(tmp_path, LOG_LEVEL="ERROR").log_level == "ERROR"
    both = {"LOG_LEVEL": "ERROR", "PIPELIT_LOG_LEVEL": "WARNING"}
    assert load(tmp_path, **both).log_level == "WARNING"
    assert load(tmp_path, {"log_level": "DEBUG"}, **both).log_level == "DEBUG"


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    """An empty variable falls through to the alias and to the default."""
    assert load(tmp_path, PIPELIT_PORT="").port == 8000
    assert load(tmp_path, PIPELIT_LOG_LEVEL="", LOG_LEVEL="ERROR").log_level == "ERROR"


def test_only_listed_settings_have_an_alias(tmp_path: Path) -> None:
    """PORT without the prefix belongs to somebody else."""
    assert load(tmp_path, PORT="9").port == 8000


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PORT", "x", "must be an integer"),
        ("PORT", "8000.5", "must be an integer"),
        ("PORT", "65536", "must be <= 65535"),
        ("PORT", "-1", "must be >= 0"),
        ("SHUTDOWN_GRACE_SECONDS", "soon", "must be a number"),
        ("SHUTDOWN_GRACE_SECONDS", "nan", "must be a number"),
        ("CORS_ALLOW_ALL_ORIGINS", "on", "must be a boolean"),
        ("LOG_LEVEL", "LOUD", "must be one of: DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("SANDBOX_MODE", "none", "must be one of: auto, bwrap"),
        ("DATABASE_URL", "mysql://a/b", "must be a URL with one of: sqlite, postgresql"),
        ("GATEWAY_URL", "gateway", "must be a URL with one of: http, https"),
        ("GATEWAY_URL", "http://h:99999", "must be a URL with one of: http, https"),
        ("EGRESS_ALLOW", "10.0.0.0/8,nonsense", "must be a comma list of CIDR or host:port"),
    ],
)
def test_a_bad_value_is_refused_in_one_sentence(
    tmp_path: Path, name: str, value: str, message: str
) -> None:
    """The sentence names the variable and the rule, never the value."""
    assert refused(tmp_path, **{f"PIPELIT_{name}": value}) == (
        f"Invalid setting PIPELIT_{name}: {message}"
    )


def test_all_bad_values_are_reported_together(tmp_path: Path) -> None:
    """An operator repairs everything at once."""
    text = refused(tmp_path, PIPELIT_PORT="x", PIPELIT_LOG_LEVEL="x")

    assert len(text.splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("YES", True), ("1", True), ("False", False), ("no", False), ("0", False)],
)
def test_booleans_are_read_in_six_spellings(tmp_path: Path, text: str, value: bool) -> None:
    """true, false, 1, 0, yes, no in any case."""
    assert load(tmp_path, PIPELIT_CORS_ALLOW_ALL_ORIGINS=text).cors_allow_all_origins is value


def test_lists_are_split_at_their_separator(tmp_path: Path) -> None:
    """Commas between networks, colons between directories."""
    settings = load(
        tmp_path,
        PIPELIT_EGRESS_ALLOW="10.0.0.0/8, model.local:8001,[::1]:80",
        PIPELIT_SKILL_DIRS="/a:/b",
    )

    assert settings.egress_allow == ("10.0.0.0/8", "model.local:8001", "[::1]:80")
    assert settings.skill_dirs == (Path("/a"), Path("/b"))


def test_secrets_and_passwords_never_appear_in_the_representation(tmp_path: Path) -> None:
    """Printing the settings in a log or a traceback gives nothing away."""
    settings = load(
        tmp_path,
        FIELD_ENCRYPTION_KEY="geheim",
        PIPELIT_METRICS_TOKEN="geheim",
        DATABASE_URL="postgresql://u:geheim@h/db",
        REDIS_URL="redis://:geheim@h/0",
    )

    assert "geheim" not in repr(settings)
    assert settings.field_encryption_key.get_secret_value() == "geheim"


@pytest.mark.parametrize("text", ["[1]", "{", "\xff"])
def test_a_broken_settings_file_stops_the_start(tmp_path: Path, text: str) -> None:
    """It is said which file cannot be read."""
    (tmp_path / "settings.json").write_bytes(text.encode("latin-1"))

    assert refused(tmp_path).startswith(f"Cannot read {tmp_path}/settings.json: ")


def test_settings_that_cannot_be_stored_are_not_read_from_the_file(tmp_path: Path) -> None:
    """settings.json holds what PATCH /settings/ may write, and nothing else."""
    (tmp_path / "settings.json").write_text('{"port": 9, "redis_url": null}')

    assert load(tmp_path).port == 8000


def test_unknown_variables_are_found_and_known_ones_are_not() -> None:
    """Client variables and those without effect are known."""
    environ = {"PIPELIT_PROT": "1", "PIPELIT_URL": "u", "PIPELIT_DEBUG": "1", "PIPELIT_DIR": "d"}

    assert unknown_variables(environ) == ("PIPELIT_PROT",)


def test_every_setting_says_what_it_is_for() -> None:
    """Each has one sentence; aliases and stored names are settings."""
    assert all(field.description for field in Settings.model_fields.values())
    assert set(Settings.model_fields) >= ALIASED | STORED
    assert variable("data_dir") == "PIPELIT_DIR"


def test_the_reference_and_the_settings_name_the_same_things() -> None:
    """Every row of the table is a setting with that default and alias, and the reverse."""
    reference = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"
    table = reference.read_text().partition("## 2. Table")[2].partition("## 3.")[0]
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", table, re.MULTILINE)

    assert {f"PIPELIT_{name}" for name, *_ in rows} == set(map(variable, Settings.model_fields))
    assert {name for name, *_, alias in rows if alias == "same"} == {a.upper() for a in ALIASED}
    defaults = Settings(data_dir=Path("DIR"))
    for name, _, default, _ in rows:
        if name not in ("DIR", "DATABASE_URL", "FIELD_ENCRYPTION_KEY"):
            value = getattr(defaults, name.lower())
            assert as_written(value) == default.split(" ")[0].strip("`"), name


def as_written(value: object) -> str:
    if value is None or value == () or isinstance(value, SecretStr):
        return '""'
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'


def test_settings_are_frozen(tmp_path: Path) -> None:
    """Nobody changes a setting under way."""
    settings = load(tmp_path)

    with pytest.raises(ValidationError):
        settings.port = 1
