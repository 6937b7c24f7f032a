"""The expression language: sandboxed Jinja2 over plain JSON data.

Pure. A template is parsed first; `Template.is_simple` tells whether rendering it here takes no
noticeable time (few lookups, literals, comparisons, plain filters). What is not simple belongs in
a process that can be killed: `pipelit.nodes.templates` sends it there.

Contract: engine.md §20.
"""

import json
import shlex
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any

import msgspec
from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2 import Template as Compiled
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipelit.errors import PipelitError

MAX_TEMPLATE_CHARS = 100_000
MAX_OUTPUT_BYTES = 1_048_576
MAX_OPERAND = 1_048_576
MAX_DIGITS = 10_000
MAX_SMALL = 65_536
"""Characters and items of a value that takes no noticeable time to render."""
MAX_REMEMBERED = 512
"""Compiled templates kept: compiling costs more than rendering."""

_MAX_BITS = int(MAX_DIGITS * 3.3219280949)

_SIMPLE_CHARS = 4_000
_SIMPLE_COUNT = 200
_SIMPLE_FILTER_COUNT = 20
_SIMPLE_NODES = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Slice,
    nodes.Const,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.CondExpr,
    nodes.Test,
)
# Filters that take time and space in proportion to one value. Only `default` may have arguments.
_SIMPLE_FILTERS = frozenset(
    {
        *("abs", "capitalize", "count", "d", "default", "first", "float", "fromjson", "int"),
        *("last", "length", "lower", "shquote", "string", "title", "tojson", "trim", "upper"),
    }
)
# Escaping doubles what is escaped already, so a chain of these grows without bound.
_GROWING_FILTERS = ("shquote", "string", "tojson")
# These look at one item, or at none.
_QUICK_FILTERS = frozenset({"count", "d", "default", "first", "last", "length"})


class ExpressionFailed(PipelitError):
    """A template has no value: its text, its names or a limit."""


class ValueTooLarge(PipelitError):
    """A value is too large to be rendered where nothing can stop it."""


class Template(msgspec.Struct, frozen=True):
    """A parsed template. `compiled` at once when it may be rendered where nothing can stop it."""

    syntax: nodes.Template
    compiled: Compiled | None = None

    @property
    def is_simple(self) -> bool:
        """Only look-ups, literals, comparisons and harmless filters (engine.md §20.9)."""
        return self.compiled is not None


def has_expression(text: str) -> bool:
    """Tell whether *text* needs rendering at all."""
    return "{{" in text or "{%" in text


def may_be_large(text: str) -> bool:
    """Tell whether parsing *text* already takes noticeable time."""
    return len(text) > _SIMPLE_CHARS


class Renderer:
    """Parses and renders templates; remembers the ones it compiled last.

    Args:
        python_literals: objects and lists render as Python literals instead of JSON, as in the
            `code` field of a code node.
        small_only: `render` raises `ValueTooLarge` rather than work on a large value.
    """

    def __init__(self, *, python_literals: bool = False, small_only: bool = False) -> None:
        self._environment = _Environment(
            repr if python_literals else _to_json, small_only=small_only
        )
        self._parsed: OrderedDict[str, Template] = OrderedDict()  # simple ones, last used last

    def parse(self, text: str) -> Template:
        """Parse *text*.

        Raises:
            ExpressionFailed: it is too long or no template.
        """
        if (known := self._parsed.get(text)) is not None:
            self._parsed.move_to_end(text)
            return known
        if len(text) > MAX_TEMPLATE_CHARS:
            raise ExpressionFailed(f"template longer than {MAX_TEMPLATE_CHARS} characters")
        try:
            syntax = self._environment.parse(text)
            if may_be_large(text) or not _is_simple(syntax):
                return Template(syntax)
            parsed = Template(syntax, self._environment.from_string(syntax))
        except (TemplateError, RecursionError) as error:
            raise ExpressionFailed(_message(error)) from error
        self._parsed[text] = parsed
        if len(self._parsed) > MAX_REMEMBERED:
            self._parsed.popitem(last=False)
        return parsed

    def render(self, template: Template, context: Mapping[str, Any]) -> str:
        """Render with plain JSON data as context.

        Raises:
            ExpressionFailed: an error of any kind, a limit included.
            ValueTooLarge: see `small_only`.
        """
        try:
            compiled = template.compiled or self._environment.from_string(template.syntax)
            return _join_bounded(compiled.generate(dict(context)))
        except (ExpressionFailed, ValueTooLarge):
            raise
        except Exception as error:  # whatever a template does wrong becomes its warning
            raise ExpressionFailed(_message(error)) from error


def _is_simple(syntax: nodes.Template) -> bool:
    found = list(syntax.find_all(nodes.Node))
    filters = sum(isinstance(node, nodes.Filter) for node in found)
    return (
        len(found) <= _SIMPLE_COUNT
        and filters <= _SIMPLE_FILTER_COUNT
        and all(map(_is_simple_node, found))
    )


def _is_simple_node(node: nodes.Node) -> bool:
    match node:
        case nodes.Filter(name=name, dyn_args=None, dyn_kwargs=None):
            has_arguments = bool(node.args or node.kwargs)
            return name in _SIMPLE_FILTERS and (not has_arguments or name in ("d", "default"))
        case nodes.List() | nodes.Tuple() | nodes.Dict():
            # A literal may not multiply a value by naming it many times.
            return node.find(nodes.Name) is None
        case _:
            return isinstance(node, (*_SIMPLE_NODES, nodes.Pair, nodes.Keyword))


def _join_bounded(parts: Iterator[str]) -> str:
    joined: list[str] = []
    size = 0
    for part in parts:
        size += len(part.encode("utf-8", "surrogatepass"))
        if size > MAX_OUTPUT_BYTES:
            raise ExpressionFailed(f"output larger than {MAX_OUTPUT_BYTES} bytes")
        joined.append(str(part))
    return "".join(joined)


def _message(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, MemoryError):
        return "out of memory"
    text = error.message if isinstance(error, TemplateError) else str(error)
    return text or type(error).__name__


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox: no globals but `range`, mappings without methods, bounded operators."""

    intercepted_binops = frozenset({"*", "+", "%", "**"})

    def __init__(self, format_container: Callable[[Any], str], *, small_only: bool) -> None:
        write = _for_small(format_container) if small_only else format_container
        # The optimizer would compute constant parts while compiling, outside every bound.
        super().__init__(
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            autoescape=False,
            optimized=False,
            cache_size=0,
            finalize=lambda value: _finalize(value, write),
        )
        self.globals = {"range": self.globals["range"]}
        del self.filters["attr"]
        self.filters["fromjson"] = json.loads
        self.filters["shquote"] = lambda value: shlex.quote(str(value))
        for name in _GROWING_FILTERS:
            self.filters[name] = _bounded(self.filters[name])
        if small_only:
            for name in _SIMPLE_FILTERS - _QUICK_FILTERS:
                self.filters[name] = _for_small(self.filters[name])

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict):
            return self.getitem(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Look up a key; of a mapping never a method."""
        if not isinstance(obj, dict):
            return super().getitem(obj, argument)
        try:
            return obj[argument]
        except (KeyError, TypeError):
            return self.undefined(obj=obj, name=argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute only what is known to be small, and check the result."""
        if _foreseen_size(operator, left, right) > MAX_OPERAND:
            raise ExpressionFailed(f"operand of '{operator}' too large")
        result = super().call_binop(context, operator, left, right)
        if _size(result) > MAX_OPERAND:
            raise ExpressionFailed(f"result of '{operator}' too large")
        return result


def _bounded(apply: Callable[..., str]) -> Callable[..., str]:
    @wraps(apply)  # Jinja marks filters that want the environment by an attribute
    def bounded(*args: Any, **kwargs: Any) -> str:
        result = apply(*args, **kwargs)
        if _size(result) > MAX_OPERAND:
            raise ExpressionFailed("result of a filter too large")
        return result

    return bounded


def _for_small(apply: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(apply)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if not _are_small(args):
            raise ValueTooLarge
        return apply(*args, **kwargs)

    return guarded


def _are_small(values: tuple[Any, ...]) -> bool:
    """Measure no further than `MAX_SMALL`, however large the values are."""
    waiting: list[Iterable[Any]] = [values]
    size = 0
    while waiting:
        for item in waiting.pop():
            size += 1 + (len(item) if isinstance(item, str) else 0)
            if size > MAX_SMALL:
                return False
            if isinstance(item, dict):
                waiting += [item.keys(), item.values()]
            elif isinstance(item, list | tuple):
                waiting.append(item)
    return True


def _finalize(value: Any, format_container: Callable[[Any], str]) -> Any:
    if value is None or isinstance(value, str | int | float | Undefined):
        return value
    if isinstance(value, dict | list | tuple):
        return format_container(value)
    raise ExpressionFailed(f"a {type(value).__name__} is not JSON data")


def _size(value: Any) -> int:
    """Measure against `MAX_OPERAND`: bytes of a text, items of a list, digits of a number."""
    if isinstance(value, int):
        return MAX_OPERAND + 1 if value.bit_length() > _MAX_BITS else 0
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    return len(value) if isinstance(value, list | tuple) else 0


def _foreseen_size(operator: str, left: Any, right: Any) -> int:
    """Return the size of the result, or of an operand if that is larger, without computing it."""
    largest = max(_size(left), _size(right))
    if operator == "*":
        return max(largest, _product_size(left, right))
    if operator == "**" and isinstance(left, int) and isinstance(right, int) and right > 0:
        return MAX_OPERAND + 1 if (left.bit_length() - 1) * right > _MAX_BITS else largest
    return largest


def _product_size(left: Any, right: Any) -> int:
    if isinstance(left, int) and isinstance(right, int):
        return MAX_OPERAND + 1 if left.bit_length() + right.bit_length() - 2 > _MAX_BITS else 0
    if isinstance(left, int):
        return max(0, left) * _size(right)
    return max(0, right) * _size(left) if isinstance(right, int) else 0
