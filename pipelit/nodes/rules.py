"""Asks the rules of `switch` and `filter`, their regular expressions in the worker pool.

Contract: operators.md.
"""

from collections.abc import Iterable
from typing import Any

from pipelit.clock import Clock
from pipelit.engine.operators import (
    MAX_PATTERN_CHARS,
    RegexTest,
    Rule,
    RuleError,
    evaluate,
    has_bad_length,
    parse_rules,
)
from pipelit.engine.outcome import Warning_
from pipelit.engine.values import to_text
from pipelit.nodes.base import config_error
from pipelit.nodes.worker import WorkerError, WorkerPool


class RuleJudge:
    """Decides whether a rule holds for a value."""

    def __init__(self, pool: WorkerPool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def holds(self, rule: Rule, field: Any) -> bool:
        """Tell whether *rule* holds for the value of its field.

        Raises:
            NodeError: `ConfigError`; the regular expression is invalid or takes too long.
        """
        answer = evaluate(rule, field, now=self._clock.now())
        if isinstance(answer, RegexTest):
            return await self._matches(answer) is not answer.negated
        return answer

    async def _matches(self, test: RegexTest) -> bool:
        shown = test.pattern[:200]
        if len(test.pattern) > MAX_PATTERN_CHARS:
            detail = f"longer than {MAX_PATTERN_CHARS} characters"
            raise config_error(f"Invalid regular expression '{shown}': {detail}")
        try:
            return await self._pool.search(test.pattern, test.subject)
        except WorkerError as error:
            if error.kind == "pattern":
                text = f"Invalid regular expression '{test.pattern}': {error}"
                raise config_error(text) from error
            raise config_error("Regular expression timed out") from error


def read_rules(raw: Any) -> tuple[Rule, ...]:
    """Read the `rules` of a config.

    Raises:
        NodeError: `ConfigError`; a rule is no object or has an unknown operator.
    """
    try:
        return parse_rules(raw)
    except RuleError as error:
        raise config_error(str(error)) from error


def length_warnings(rules: Iterable[Rule]) -> tuple[Warning_, ...]:
    """Return one warning for each rule that compares a length with no integer."""
    return tuple(
        {
            "code": "bad_length_value",
            "message": f"'{to_text(rule.value)[:200]}' is not an integer length",
        }
        for rule in rules
        if has_bad_length(rule)
    )
