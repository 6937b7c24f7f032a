"""The `extractor`: a model call that pulls one JSON object out of a text.

Contract: node-types.md §5.5.
"""

import json
from dataclasses import dataclass
from typing import Any

from pipelit.engine.extraction import shape
from pipelit.engine.outcome import Outcome
from pipelit.engine.parsers import parse_json
from pipelit.nodes.agent_model import ModelParts
from pipelit.nodes.base import Component, NodeCall, NodeError
from pipelit.nodes.parsing import OutputParsing
from pipelit.nodes.questions import Questioner, open_questioner

_LIST_PARSERS = frozenset({"regex", "list"})


@dataclass(frozen=True, kw_only=True)
class ExtractorParts:
    """What extractors are built from."""

    models: ModelParts
    parsing: OutputParsing


def extractor_component(parts: ExtractorParts) -> Component:
    """Return the component of type `extractor`."""

    async def extractor(call: NodeCall) -> Outcome:
        questioner = await open_questioner(call, parts.models)
        schema = _schema_of(call)
        system = _system_prompt(call, schema)
        conversation = [questioner.message("user", questioner.question)]
        raw = await questioner.ask(system, conversation)
        extracted = await _read(call, raw, parts.parsing, questioner)
        if extracted is None:
            repair = _repair_request(call, raw)
            conversation += [
                questioner.message("assistant", raw),
                questioner.message("user", repair),
            ]
            raw = await questioner.ask(system, conversation)
            extracted = await _read(call, raw, parts.parsing, questioner)
        if extracted is None:
            raise NodeError(
                "Extractor could not parse a JSON object from the model response",
                code="ExtractionError",
                retryable=False,
                report=questioner.report(),
            )
        if not _gives_a_list(call):
            extracted, warnings = shape(extracted, schema)
            questioner.warn(*warnings)
        return Outcome(ports={"extracted": extracted, "raw": raw}, report=questioner.report())

    return extractor


def _parser_config(call: NodeCall) -> dict[str, Any]:
    parser = call.attached.output_parser
    config: dict[str, Any] = (parser[1].get("extra_config") or {}) if parser is not None else {}
    return config


def _schema_of(call: NodeCall) -> Any:
    return call.extra.get("extraction_schema") or _parser_config(call).get("schema")


def _gives_a_list(call: NodeCall) -> bool:
    return _parser_config(call).get("parser_type") in _LIST_PARSERS


def _system_prompt(call: NodeCall, schema: Any) -> str:
    prompt: str = call.config.get("system_prompt") or ""
    if _gives_a_list(call):
        return prompt  # only its author knows what the parser wants to read
    form = f" of this schema:\n{json.dumps(schema, ensure_ascii=False)}\n" if schema else ". "
    instruction = (
        f"Extract the data from the user's message. Answer only with one JSON object{form}"
        "Use null for everything the message does not say."
    )
    return f"{prompt}\n\n{instruction}" if prompt else instruction


async def _read(
    call: NodeCall, raw: str, parsing: OutputParsing, questioner: Questioner
) -> dict[str, Any] | None:
    """Return the object an answer holds, or None if it holds none."""
    parsed = await parsing.parse(call, raw)
    if parsed is None:
        value = parse_json(raw, otherwise=None)
    else:
        questioner.warn(*parsed.warnings)
        value = parsed.value
    if isinstance(value, list) and _gives_a_list(call):
        return {"items": value}
    return value if isinstance(value, dict) else None


def _repair_request(call: NodeCall, raw: str) -> str:
    form = "" if _gives_a_list(call) else ", only with the JSON object"
    return f"Your answer could not be used: {_problem(call, raw)}. Answer again{form}."


def _problem(call: NodeCall, raw: str) -> str:
    if _gives_a_list(call):
        return "what is looked for was not found in it"
    try:
        json.loads(raw)
    except (ValueError, RecursionError) as error:
        return str(error) or "it is nested too deeply"
    return "it is JSON, but no object"
