"""What strangers send: token soup for parsers, and how long a parser may think about it.

`PIPELIT_FUZZ_EXAMPLES` sets how many examples each property tries; `make fuzz-parsers` raises it.
"""

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

T = TypeVar("T")

EXAMPLES = int(os.environ.get("PIPELIT_FUZZ_EXAMPLES", "60"))
MAX_CPU_SECONDS = 1.0

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
)
"""Decorates a property: no deadline of wall time, as many examples as wanted."""


def within_a_second(call: Callable[..., T], *args: Any) -> T:
    """Return what a call returns, and see that it took at most a second of processor time."""
    started = time.thread_time()
    try:
        return call(*args)
    finally:
        spent = time.thread_time() - started
        assert spent < MAX_CPU_SECONDS, f"{spent:.1f} s for {str(args)[:300]}"


def soup(*tokens: str, longest: int = 40) -> st.SearchStrategy[str]:
    """Texts of the given tokens and of anything else; some repeat one piece many times."""
    piece = st.one_of(st.sampled_from(tokens), st.text(max_size=5))
    texts = st.lists(piece, max_size=longest).map("".join)
    pumped = st.builds(
        lambda before, part, times, after: before + part * times + after,
        st.lists(st.sampled_from(tokens), max_size=4).map("".join),
        st.lists(st.sampled_from(tokens), min_size=1, max_size=3).map("".join),
        st.integers(1, 5000),
        st.lists(st.sampled_from(tokens), max_size=4).map("".join),
    )
    return texts | pumped


JSON_TOKENS = (
    *"{}[]:,\"\\ \n\t", "null", "true", "false", "NaN", "Infinity", "-", "0", "1e999", "1e-999",
    "9" * 19, "9" * 5000, "\\u0000", "\\ud800", "\\udc00", '"a"', '{"a":', "[[", "\ufeff", "\x00",
)  # fmt: skip
TEMPLATE_TOKENS = (
    "{{", "}}", "{%", "%}", "{#", "#}", " ", "text", "n", "xs", "nodes", "a.b", ".", "|", "upper",
    "tojson", "fromjson", "default('x')", "(", ")", "[", "]", "'", '"', "+", "*", "**", "~", "//",
    "if", "else", "endif", "for x in xs", "endfor", "set", "macro m()", "range(9)", "__class__",
    "loop.index", "==", "not", "and", "1", "99999999999", "\\", "\n", "-", "raw", "endraw", "self",
)  # fmt: skip
CRON_TOKENS = (
    *"*/,-? \t0123456789LW#", "MON", "jan", "SUN", "60", "24", "32", "*/0", "1-", "@daily", "\n",
    "-1", "0-59/61", "99999999999999999999", "１",
)  # fmt: skip
DSL_TOKENS = (
    "name: x\n", "trigger: chat\n", "steps:\n", "- ", "  ", "\n", ":", "&a ", "*a", "<<: *a\n",
    "!!python/object:os.system ", "!x ", "|\n", ">\n", "{", "}", "[", "]", ",", "'", '"', "#", "?",
    "---\n", "...\n", "%YAML 9.9\n", "~", "1e999", ".inf", "0x10", "2026-01-01", "id: a\n",
    "type: agent\n", "type: code\n", "type: loop\n", "  - id: b\n", "    type: switch\n", "over: ",
    "model:\n", "  inherit: true\n", "tools:\n", "based_on: x\n", "patches:\n", "\t", "\x00",
    "\x85", "nodes:\n", "edges:\n", "settings:\n", "body:\n", "rules:\n", "{{ trigger.text }}",
)  # fmt: skip
MODEL_TOKENS = (
    "```", "json", " ", "\n", "{", "}", '"', "\\", "- ", "1. ", "• ", "a", "0", "[", "]", ":", ",",
    "category", "==", "`", "\x85",
)  # fmt: skip
CODE_TOKENS = (
    "import ", "from ", "os", "eval", "(", " ", "\n", ";", ":", "open", "'/etc", "rm ", "-rf ", "/",
    "|", "curl ", "sh", ">", "&", "\\\n", '"', "=", "dd ", "of=/dev/", "`", "_", ".",
)  # fmt: skip
SUM_TOKENS = (
    *"0123456789.+-*/%() ",
    "**",
    "//",
    "1e308",
    "9" * 50,
    "a",
    "_",
    "\n",
    "((((",
    "-" * 9,
)
