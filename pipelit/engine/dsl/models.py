"""From a model spec to a model, without calling any provider.

Contract: engine.md §27.4.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from pipelit.engine.dsl.errors import ModelResolutionError
from pipelit.engine.dsl.scores import Preference, score_of


class ModelChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What an `ai_model` node is configured with."""

    credential_id: int | None
    model_name: str
    temperature: float | None = None


class LlmCredential(msgspec.Struct, frozen=True, kw_only=True):
    """A credential the owner may use. `models` is None while its list is not known."""

    id: int
    provider_type: str
    models: tuple[str, ...] | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The agent that asks for a workflow: donor of its model and of its tools' settings.

    `tools` is `{component_type: extra_config}` of what is attached to it.
    """

    node_id: str
    model: ModelChoice | None = None
    tools: Mapping[str, Mapping[str, Any]] = {}


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """What a document may refer to without naming it."""

    credentials: tuple[LlmCredential, ...] = ()
    caller: Caller | None = None


class Resolution(msgspec.Struct, frozen=True):
    """A model, and what could not be checked about it."""

    model: ModelChoice
    warnings: tuple[str, ...] = ()


_FAMILIES = (
    ("claude", "anthropic"),
    ("gpt", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("glm", "glm"),
)


def resolve(spec: object, catalogue: Catalogue) -> Resolution:
    """Return the model *spec* stands for; a text is `inherit`, `discover` or a capability.

    Raises:
        ModelResolutionError: there is none.
    """
    wanted = _as_mapping(spec)
    found = _find(wanted, catalogue)
    temperature = wanted.get("temperature")
    if temperature is None:
        return found
    if isinstance(temperature, bool) or not isinstance(temperature, int | float):
        raise ModelResolutionError("Model `temperature` must be a number")
    model = msgspec.structs.replace(found.model, temperature=float(temperature))
    return Resolution(model, found.warnings)


def inherit(catalogue: Catalogue) -> ModelChoice:
    """Return the calling agent's model.

    Raises:
        ModelResolutionError: nobody calls, or the caller has none.
    """
    if catalogue.caller is None or catalogue.caller.model is None:
        raise ModelResolutionError("Cannot inherit model: parent node has no config")
    return catalogue.caller.model


def _as_mapping(spec: object) -> Mapping[str, Any]:
    if isinstance(spec, dict):
        return spec
    if isinstance(spec, str) and spec:
        return {spec: True} if spec in ("inherit", "discover") else {"capability": spec}
    raise ModelResolutionError("A model must be a text or a mapping")


def _find(wanted: Mapping[str, Any], catalogue: Catalogue) -> Resolution:
    if wanted.get("inherit"):
        return Resolution(inherit(catalogue))
    if wanted.get("capability"):
        return _capable(str(wanted["capability"]), catalogue.credentials)
    if wanted.get("discover"):
        return _discover(wanted.get("preference") or "cheapest", catalogue.credentials)
    credential_id, model_name = wanted.get("credential_id"), wanted.get("model_name")
    if isinstance(credential_id, int) and isinstance(model_name, str) and model_name:
        return Resolution(ModelChoice(credential_id=credential_id, model_name=model_name))
    raise ModelResolutionError(
        "A model needs one of inherit, capability, discover, or credential_id with model_name"
    )


def _capable(text: str, credentials: tuple[LlmCredential, ...]) -> Resolution:
    if not credentials:
        raise ModelResolutionError(f"No LLM credential found for capability '{text}'")
    wanted = text.lower()
    known = list(_known(credentials))
    exact = next((pair for pair in known if pair[1].lower() == wanted), None)
    containing = [pair for pair in known if wanted in pair[1].lower()]
    if exact or containing:
        credential, model = exact or min(containing, key=lambda pair: len(pair[1]))
        return Resolution(ModelChoice(credential_id=credential.id, model_name=model))
    chosen = next((c for c in credentials if _is_family(c, wanted)), credentials[0])
    model_choice = ModelChoice(credential_id=chosen.id, model_name=text)
    doubts = _unknown_lists(credentials) or (f"No credential offers a model like '{text}'",)
    return Resolution(model_choice, doubts)


def _is_family(credential: LlmCredential, wanted: str) -> bool:
    provider = credential.provider_type.lower()
    return wanted in provider or any(
        wanted.startswith(prefix) and family in provider for prefix, family in _FAMILIES
    )


def _discover(preference: str, credentials: tuple[LlmCredential, ...]) -> Resolution:
    if not credentials:
        raise ModelResolutionError("No LLM credentials available for model discovery")
    try:
        wish = Preference(preference)
    except ValueError:
        valid = ", ".join(wish.value for wish in Preference)
        raise ModelResolutionError(
            f"Unknown model preference '{preference}'. Valid: {valid}"
        ) from None
    scored = [
        (score, credential, model)
        for credential, model in _known(credentials)
        if (score := score_of(model, wish)) is not None
    ]
    if not scored:
        raise ModelResolutionError("No scoreable models found across available credentials")
    _, credential, model = max(scored, key=lambda entry: entry[0])
    choice = ModelChoice(credential_id=credential.id, model_name=model)
    return Resolution(choice, _unknown_lists(credentials))


def _known(credentials: Iterable[LlmCredential]) -> Iterator[tuple[LlmCredential, str]]:
    for credential in credentials:
        for model in credential.models or ():
            yield credential, model


def _unknown_lists(credentials: Iterable[LlmCredential]) -> tuple[str, ...]:
    return tuple(
        f"The models of credential {credential.id} are not known"
        for credential in credentials
        if credential.models is None
    )
