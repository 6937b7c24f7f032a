"""Checks, masks and merges of credential fields. Contract: credentials.md."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.services.credential_detail import (
    FIELDS,
    CredentialType,
    Problem,
    build_values,
    find_problems,
    mask,
    merge,
    merge_foreign,
    show,
)

KEY = "sk-demo-0123456789abcdef"


def test_each_type_has_the_contracts_fields_and_defaults() -> None:
    """An empty detail is every shown field at its default."""
    assert {kind: show(kind, build_values(kind, {}, name="N")) for kind in FIELDS} == {
        "llm": {
            "provider_type": "openai_compatible",
            "api_key": "",
            "base_url": "",
            "organization_id": "",
            "custom_headers": {},
        },
        "gateway": {
            "api_key": "",
            "allowed_user_ids": "",
            "adapter_type": "",
            "gateway_credential_id": "N",
        },
        "git": {
            "provider": "github",
            "credential_type": "token",
            "username": "",
            "ssh_private_key": "",
            "access_token": "",
            "webhook_secret": "",
        },
        "tool": {"tool_type": "api", "config": {}, "is_preferred": False},
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", ""),
        ("x", "****"),
        ("123456789012345", "****"),
        ("1234567890123456", "1234****3456"),
        (KEY, "sk-d****cdef"),
    ],
)
def test_a_mask_shows_at_most_half(value: str, shown: str) -> None:
    """Empty stays visible, short is hidden, long shows its ends."""
    assert mask(value) == shown


@given(st.text(min_size=1))
def test_a_mask_never_shows_more_than_half_of_a_secret(value: str) -> None:
    """Whatever the secret is: nothing, or the two ends of a text at least twice as long."""
    shown = mask(value)

    assert shown == "****" or (len(shown), len(value) >= 16) == (12, True)


def test_whole_secrets_show_only_that_they_are_set() -> None:
    """Not even the ends of an SSH key are shown."""
    values = build_values("git", {"ssh_private_key": KEY * 9, "webhook_secret": ""}, name="N")

    shown = show("git", values)

    assert (shown["ssh_private_key"], shown["webhook_secret"]) == ("****", "")


def test_objects_are_masked_by_name_at_any_depth() -> None:
    """Texts whose own name sounds secret are masked, in any case, in lists too."""
    config = {
        "url": "http://x",
        "X-API-Key": KEY,
        "Authorization": "short",
        "retries": 3,
        "nested": [{"sessionCookie": KEY, "user": "ada"}],
        "tokens": [KEY, 7, None],
        "password": {"hint": "blue"},
        "secret_count": 4,
    }

    shown = show("tool", build_values("tool", {"config": config}, name="N"))["config"]

    assert shown == {
        "url": "http://x",
        "X-API-Key": "sk-d****cdef",
        "Authorization": "****",
        "retries": 3,
        "nested": [{"sessionCookie": "sk-d****cdef", "user": "ada"}],
        "tokens": ["sk-d****cdef", 7, None],
        "password": {"hint": "blue"},
        "secret_count": 4,
    }


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        ("llm", "api_key", 5, "must be a string"),
        ("llm", "api_key", None, "must not be null"),
        ("llm", "api_key", "x" * 4097, "must be at most 4096 characters"),
        (
            "llm",
            "provider_type",
            "x",
            "must be one of: openai_compatible, anthropic, openai, glm",
        ),
        ("llm", "custom_headers", [], "must be an object"),
        ("llm", "custom_headers", None, "must not be null"),
        ("git", "provider", "x" * 21, "must be at most 20 characters"),
        ("git", "credential_type", "", "must be one of: token, ssh"),
        ("tool", "tool_type", False, "must be a string"),
        ("tool", "config", "{}", "must be an object"),
        ("tool", "is_preferred", 1, "must be a boolean"),
        ("gateway", "config", 1, "must be an object"),
    ],
)
def test_a_wrong_field_is_named_with_the_contracts_message(
    kind: CredentialType, field: str, value: object, message: str
) -> None:
    """Each rule of the table has its sentence."""
    assert list(find_problems(kind, {field: value})) == [Problem((field,), message)]


def test_all_problems_are_found_together_and_unknown_fields_are_none() -> None:
    """Fields nobody knows, and those only the server sets, are ignored whatever they hold."""
    sent = {"api_key": 1, "organization_id": None, "what": 5}

    assert [problem.path for problem in find_problems("llm", sent)] == [
        ("api_key",),
        ("organization_id",),
    ]
    assert not list(find_problems("gateway", {"gateway_credential_id": 5, "config": None}))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://10.0.0.8:8001/v1/",
        "https://api.example.com",
        "HTTP://[::1]:8080/v1/a@b",
        "https://host/path@x",
    ],
)
def test_a_base_url_may_be_empty_or_http(url: str) -> None:
    """Where it leads is not looked at when it is stored."""
    assert not list(find_problems("llm", {"base_url": url}))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "http://",
        "http://user@host/",
        "http://user:pw@host/",
        "http://a\\@b/",
        "http://host:99999/",
        "http://host:x/",
        "http://[::1/",
        "http://a b/",
        "http://a/\n",
        " http://a/",
        "//host",
        "host",
        "http://a/v1?x=",
        "http://a?x=",
        "http://a/v1#",
    ],
)
def test_a_base_url_of_another_form_is_refused(url: str) -> None:
    """No other scheme, no user info, nothing that is not a URL."""
    assert [p.path for p in find_problems("llm", {"base_url": url})] == [("base_url",)]


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\0b"])
def test_a_header_cannot_smuggle_another(text: str) -> None:
    """Names and values hold no line break."""
    assert list(find_problems("llm", {"custom_headers": {"X": text}})) == [
        Problem(("custom_headers", "X"), "must be valid text")
    ]
    assert list(find_problems("llm", {"custom_headers": {text: "x"}})) == [
        Problem(("custom_headers", text), "must be valid text")
    ]
    assert list(find_problems("llm", {"custom_headers": {"X": 1, "Y": None}})) == [
        Problem(("custom_headers", "X"), "must be a string"),
        Problem(("custom_headers", "Y"), "must not be null"),
    ]


def test_a_merge_changes_only_what_was_sent() -> None:
    """Other fields keep their values, unknown and read-only ones are dropped."""
    values = build_values("gateway", {"api_key": KEY, "token": "t"}, name="N")

    merged = merge("gateway", values, {"token": "u", "gateway_credential_id": "evil", "x": 1})

    assert merged == {**values, "token": "u"}


def test_sending_the_masks_back_changes_nothing() -> None:
    """A client may edit what it was shown and send all of it."""
    sent = {
        "llm": {"api_key": KEY, "custom_headers": {"X-Token": KEY, "X-Auth": "s", "X-Team": "t"}},
        "gateway": {"api_key": KEY, "token": KEY, "config": {"a": 1}},
        "git": {"ssh_private_key": KEY, "access_token": "short", "webhook_secret": KEY},
        "tool": {"config": {"a": [{"key": KEY}], "keys": [KEY, "s"]}},
    }
    for kind, detail in sent.items():
        values = build_values(kind, detail, name="N")

        assert merge(kind, values, show(kind, values)) == values


def test_an_empty_text_clears_a_secret() -> None:
    """Clearing and leaving alone are different."""
    values = build_values("llm", {"api_key": KEY}, name="N")

    assert merge("llm", values, {"api_key": ""})["api_key"] == ""


def test_stars_that_are_not_the_shown_mask_are_a_value() -> None:
    """Only exactly what is shown leaves the stored value."""
    values = build_values("llm", {"api_key": KEY}, name="N")
    unset = build_values("git", {}, name="N")

    assert merge("llm", values, {"api_key": "****"})["api_key"] == "****"
    assert merge("git", unset, {"webhook_secret": "****"})["webhook_secret"] == "****"


def test_objects_are_replaced_whole() -> None:
    """A header that is not sent is gone."""
    values = build_values("llm", {"custom_headers": {"A": "1", "B-Key": KEY}}, name="N")

    merged = merge("llm", values, {"custom_headers": {"B-Key": mask(KEY)}})

    assert merged["custom_headers"] == {"B-Key": KEY}


@pytest.mark.parametrize(
    ("base_url", "kept"),
    [
        ("https://api.example.com/v2", True),
        ("https://API.example.com:443/v1", True),
        ("http://api.example.com/v1", False),
        ("https://api.example.com:444/v1", False),
        ("https://evil.example.com/v1", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("echo", [{}, {"api_key": mask(KEY)}])
def test_whoever_retargets_another_persons_credential_must_know_the_key(
    base_url: str, kept: bool, echo: dict[str, str]
) -> None:
    """Another scheme, host or port clears the key; its mask does not count as the key."""
    values = build_values(
        "llm", {"api_key": KEY, "base_url": "https://api.example.com/v1"}, name="N"
    )
    sent = {"base_url": base_url, **echo}

    assert merge_foreign("llm", values, sent)["api_key"] == (KEY if kept else "")
    assert merge_foreign("llm", values, {**sent, "api_key": "new"})["api_key"] == "new"
    assert merge("llm", values, sent)["api_key"] == KEY
