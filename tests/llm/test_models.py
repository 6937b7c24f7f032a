"""Windows and habits by name."""

import pytest

from pipelit.llm.models import is_anthropic_service, wants_system_prompt_fallback, window_of


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("gpt-4o-mini-2024-07-18", 128_000),
        ("gpt-4", 8_192),
        ("openai/GPT-4-0613", 8_192),
        ("gpt-4.1", 128_000),
        ("gpt-3.5-turbo:free", 16_384),
        ("o1-mini", 128_000),
        ("o1", 200_000),
        ("o3@eu", 200_000),
        ("claude-sonnet-4-6", 200_000),
        ("claude2", 128_000),
        ("", 128_000),
    ],
)
def test_the_longest_prefix_gives_the_window(model: str, tokens: int) -> None:
    """A prefix counts only at a boundary of the name."""
    assert window_of(model).tokens == tokens


def test_settings_go_before_the_table_and_bad_ones_are_told() -> None:
    """The agent's setting, then the model's; what is not a positive integer is passed over."""
    assert window_of("gpt-4", agent_setting=10, model_setting=20).tokens == 10

    for bad in (0, -1, True, "10", 1.5):
        window = window_of("gpt-4", agent_setting=bad, model_setting=20)

        assert window.tokens == 20
        assert len(window.problems) == 1


@pytest.mark.parametrize(
    ("kind", "base_url", "setting", "wanted"),
    [
        ("openai_compatible", "http://127.0.0.1:9100/v1", None, True),
        ("openai_compatible", "", "auto", True),
        ("openai_compatible", "https://API.openai.com/v1", "auto", False),
        ("openai_compatible", "https://api.openai.com/v1", "always", True),
        ("openai_compatible", "http://127.0.0.1:9100/v1", "never", False),
        ("openai", "http://127.0.0.1:9100/v1", "auto", False),
        ("glm", "", "auto", False),
        ("anthropic", "", "auto", False),
    ],
)
def test_the_fallback_is_for_compatible_providers(
    kind: str, base_url: str, setting: object, wanted: bool
) -> None:
    """`auto` repeats the system prompt only where it might be ignored."""
    assert wants_system_prompt_fallback(kind, base_url, setting) is wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("base_url", "is_home"),
    [
        ("", True),
        ("https://api.anthropic.com/v1", True),
        ("https://anthropic.com.evil.example", False),
        ("https://notanthropic.com", False),
        ("http://[", False),
    ],
)
def test_anthropic_is_told_by_its_host(base_url: str, is_home: bool) -> None:
    """A name inside the URL is not enough."""
    assert is_anthropic_service("anthropic", base_url) is is_home
