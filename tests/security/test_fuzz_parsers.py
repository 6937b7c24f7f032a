"""No text makes a parser crash, or think for more than a second.

Each either answers or refuses with the error it declares. Users' own regular expressions run in
children that can be killed: tests/nodes/test_worker.py.
"""

import contextlib
import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine.calculator import CalculatorError, calculate
from pipelit.engine.code_scan import find_forbidden
from pipelit.engine.cron import CronError, CronTimes, parse_cron
from pipelit.engine.dsl import Catalogue, check_document
from pipelit.engine.expressions import ExpressionFailed, Renderer, ValueTooLarge
from pipelit.engine.parsers import parse
from pipelit.errors import BadRequest
from pipelit.llm.scripted import Ask, demo_script
from pipelit.nodes.logic import condition_route
from pipelit.web.jsontext import parse_json
from pipelit.web.ws.frames import parse_frame
from tests.kit.hostile import (
    CODE_TOKENS,
    CRON_TOKENS,
    DSL_TOKENS,
    JSON_TOKENS,
    MODEL_TOKENS,
    SUM_TOKENS,
    TEMPLATE_TOKENS,
    fuzz,
    soup,
    within_a_second,
)

CONTEXT: dict[str, Any] = {"text": "Hello", "n": 5, "xs": [1, 2], "a": {"b": "c"}, "nodes": {}}
START = datetime(2026, 2, 28, 23, 59, tzinfo=UTC)


@fuzz
@given(st.binary(max_size=200) | soup(*JSON_TOKENS).map(lambda s: s.encode(errors="replace")))
def test_a_body_is_json_or_refused(body: bytes) -> None:
    """And what is taken is what it says."""
    try:
        value = within_a_second(parse_json, body)
    except BadRequest:
        return
    assert json.loads(body) == value


@fuzz
@given(soup(*JSON_TOKENS, '"type":', '"subscribe"', '"channel":', '"since":', '"batch"'))
def test_a_frame_is_understood_or_ignored(text: str) -> None:
    """It never raises: one bad frame would end the socket."""
    within_a_second(parse_frame, text)


@fuzz
@given(soup(*TEMPLATE_TOKENS))
def test_an_expression_renders_or_fails(text: str) -> None:
    """What is not simple is only parsed here: it runs in a child."""
    renderer = Renderer(small_only=True)
    try:
        template = within_a_second(renderer.parse, text)
        if template.is_simple:
            within_a_second(renderer.render, template, CONTEXT)
    except (ExpressionFailed, ValueTooLarge):
        pass


@fuzz
@given(soup(*CRON_TOKENS, longest=12), st.sampled_from(["UTC", "America/New_York"]))
def test_a_cron_pattern_has_times_or_is_refused(text: str, zone: str) -> None:
    """Looking for its next times ends, also if it has none."""
    try:
        pattern = within_a_second(parse_cron, text)
    except CronError:
        return
    times = CronTimes(pattern, ZoneInfo(zone))

    def look() -> list[datetime]:
        found = [times.after(START)]
        found.append(times.after(found[-1]))
        return found

    found = within_a_second(look)
    assert START < found[0] < found[1]


@fuzz
@given(soup(*DSL_TOKENS) | soup(*DSL_TOKENS).map(lambda s: "name: x\ntrigger: chat\nsteps:\n" + s))
def test_a_document_compiles_or_is_told_why_not(text: str) -> None:
    """A broken one is a result."""
    checked = within_a_second(check_document, text, Catalogue())

    assert checked.valid or checked.errors


@fuzz
@given(soup(*SUM_TOKENS))
def test_a_sum_is_done_or_refused(text: str) -> None:
    """Also what is no sum."""
    with contextlib.suppress(CalculatorError):
        within_a_second(calculate, text)


@fuzz
@given(soup(*MODEL_TOKENS), st.sampled_from(["json", "list", "other"]))
def test_a_models_text_is_parsed_or_kept(text: str, parser: str) -> None:
    """A parser never raises."""
    within_a_second(parse, {"parser_type": parser}, text)


@fuzz
@given(soup(*CODE_TOKENS))
def test_code_is_looked_through(text: str) -> None:
    """In time linear in its length."""
    within_a_second(find_forbidden, "python", text)
    within_a_second(find_forbidden, "bash", text)


LONG = 100_000


@pytest.mark.parametrize(
    "text",
    ["```" + " " * LONG, "```json" + "\n" * LONG + "x", "`" * LONG, "- " * LONG, "0" * LONG],
    ids=lambda text: repr(text[:9]),
)
def test_a_models_long_text_is_parsed_in_linear_time(text: str) -> None:
    """What a model repeats for ever included."""
    for parser in ("json", "list"):
        within_a_second(parse, {"parser_type": parser}, text)


@pytest.mark.parametrize("condition", ["a" + " " * LONG + "b", "=" * LONG, "= " * LONG])
def test_a_long_condition_is_read_in_linear_time(condition: str) -> None:
    """Of a switch."""
    within_a_second(condition_route, {"condition_expression": condition}, {})


@pytest.mark.parametrize("question", ["(" * LONG, "1" * LONG, "1+" * LONG, "-(" * LONG])
def test_the_scripted_model_answers_a_long_question_at_once(question: str) -> None:
    """It runs in the server itself."""
    within_a_second(demo_script, Ask(model="m", messages=[{"role": "user", "content": question}]))
