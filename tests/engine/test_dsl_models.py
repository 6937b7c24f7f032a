"""Model specs lead to models without a call to any provider: engine.md §27.4."""

import pytest

from pipelit.engine.dsl import Caller, Catalogue, LlmCredential, ModelChoice, ModelResolutionError
from pipelit.engine.dsl.models import resolve

OPENAI = LlmCredential(
    id=1, provider_type="openai", models=("gpt-4o", "gpt-4o-mini", "gpt-4-turbo", "o1")
)
CLAUDE = LlmCredential(id=2, provider_type="anthropic", models=("claude-opus-4-1",))
UNKNOWN = LlmCredential(id=3, provider_type="glm")
ALL = Catalogue(credentials=(OPENAI, CLAUDE, UNKNOWN))


@pytest.mark.parametrize(
    ("spec", "credential_id", "model"),
    [
        ("gpt-4o", 1, "gpt-4o"),
        ("GPT-4O-MINI", 1, "gpt-4o-mini"),
        ({"capability": "gpt"}, 1, "gpt-4o"),
        ("opus", 2, "claude-opus-4-1"),
        ("claude-next", 2, "claude-next"),
        ("anthropic", 2, "anthropic"),
        ("glm-9", 3, "glm-9"),
        ("else", 1, "else"),
        ("discover", 1, "gpt-4o-mini"),
        ({"discover": True, "preference": "fastest"}, 1, "gpt-4o-mini"),
        ({"discover": True, "preference": "most_capable"}, 2, "claude-opus-4-1"),
        ({"credential_id": 9, "model_name": "any"}, 9, "any"),
    ],
)
def test_a_spec_finds_its_model(spec: object, credential_id: int, model: str) -> None:
    """Exact id, shortest containing id, family, first credential; or the best score."""
    found = resolve(spec, ALL).model

    assert (found.credential_id, found.model_name) == (credential_id, model)


def test_an_unknown_list_is_a_warning_only_where_it_matters() -> None:
    """A model that was found in a list needs no other list."""
    assert resolve("gpt-4o", ALL).warnings == ()
    assert resolve("else", ALL).warnings == ("The models of credential 3 are not known",)


def test_a_temperature_may_accompany_any_spec() -> None:
    """Also an inherited one is overridden."""
    caller = Caller(
        node_id="a", model=ModelChoice(credential_id=1, model_name="m", temperature=0.9)
    )
    catalogue = Catalogue(caller=caller)

    assert resolve("inherit", catalogue).model.temperature == 0.9
    assert resolve({"inherit": True, "temperature": 0}, catalogue).model.temperature == 0.0


@pytest.mark.parametrize(
    ("spec", "catalogue", "error"),
    [
        ("inherit", Catalogue(), "Cannot inherit model: parent node has no config"),
        ("gpt", Catalogue(), "No LLM credential found for capability 'gpt'"),
        ("discover", Catalogue(), "No LLM credentials available for model discovery"),
        (
            "discover",
            Catalogue(credentials=(UNKNOWN,)),
            "No scoreable models found across available credentials",
        ),
        (
            {"discover": True, "preference": "prettiest"},
            ALL,
            "Unknown model preference 'prettiest'. Valid: cheapest, fastest, most_capable",
        ),
        (7, ALL, "A model must be a text or a mapping"),
        ({"temperature": 1}, ALL, "A model needs one of inherit, capability, discover, or "),
        ({"capability": "o1", "temperature": "hot"}, ALL, "Model `temperature` must be a number"),
    ],
)
def test_a_spec_without_a_model_says_why(spec: object, catalogue: Catalogue, error: str) -> None:
    """No names of credentials or models are revealed."""
    with pytest.raises(ModelResolutionError) as raised:
        resolve(spec, catalogue)

    assert raised.value.staged()[0].startswith(f"Model resolution error: {error}")


def test_a_model_that_nobody_lists_is_taken_with_a_doubt() -> None:
    """The provider may know it all the same."""
    known = Catalogue(credentials=(LlmCredential(id=3, provider_type="openai", models=("m",)),))

    found = resolve("other", known)

    assert (found.model.credential_id, found.model.model_name) == (3, "other")
    assert found.warnings == ("No credential offers a model like 'other'",)
