"""Resolves the expressions of a node's config just before an attempt.

Contract: engine.md §20.2, §20.8, §20.9.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
import trio

from pipelit.engine.definition import NodeDef
from pipelit.engine.expressions import (
    MAX_TEMPLATE_CHARS,
    ExpressionFailed,
    Renderer,
    ValueTooLarge,
    has_expression,
    may_be_large,
)
from pipelit.engine.outcome import Warning_
from pipelit.engine.paths import split_path, walk
from pipelit.nodes.base import NodeError
from pipelit.nodes.worker import WorkerError, WorkerPool

MAX_TEMPLATES = 1000
"""Strings of one config that are rendered."""
_SHOWN_CHARS = 200

# operators.md §3, step 5: braces around a whole path are part of the path, not a template.
_PATH_FIELD = re.compile(r"extra_config\.(rules\.\d+\.field|condition_field|condition_expression)")
_LONE_PATH = re.compile(r"\s*\{\{\s*([\w.-]+)\s*\}\}\s*")
_MAPPING = "extra_config.input_mapping."
"""What a subworkflow is given: a lone path keeps its JSON type."""


class ResolvedConfig(msgspec.Struct, frozen=True):
    """A config with every expression resolved, and what could not be."""

    config: dict[str, Any]
    warnings: tuple[Warning_, ...] = ()


class Templates:
    """Resolves configs and renders templates: the simple and small here, others in the pool."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._renderers = {
            literals: Renderer(python_literals=literals, small_only=True)
            for literals in (False, True)
        }

    async def render(
        self, text: str, context: Mapping[str, Any], *, python_literals: bool = False
    ) -> str:
        """Render *text*; without braces it is returned untouched.

        Args:
            context: {name: plain JSON data}, the names of engine.md §20.4.
            python_literals: objects and lists become Python literals instead of JSON.

        Raises:
            ExpressionFailed: an error of any kind, a limit included.
        """
        if not has_expression(text):
            return text
        await trio.lowlevel.checkpoint()  # a config may hold many
        if not may_be_large(text):
            renderer = self._renderers[python_literals]
            template = renderer.parse(text)
            if template.is_simple:
                with suppress(ValueTooLarge):
                    return renderer.render(template, context)
        return await self._render_outside(text, context, python_literals=python_literals)

    async def resolve(self, node: NodeDef, context: Mapping[str, Any]) -> ResolvedConfig:
        """Resolve `system_prompt` and every string inside `extra_config` of *node*.

        A string whose expression fails stays as it is and adds a warning.

        Raises:
            NodeError: `ExpressionError`, if the node wants `strict_expressions`.
        """
        config = dict(node.config)
        is_code = node.component_type == "code"
        if is_code and node.extra.get("template") is False:
            return ResolvedConfig(config)
        strict = node.extra.get("strict_expressions") is True
        resolver = _Resolver(context, self, strict=strict)
        prompt = config.get("system_prompt")
        if isinstance(prompt, str):
            config["system_prompt"] = await resolver.resolve(prompt, "system_prompt")
        if node.extra:
            config["extra_config"] = {
                key: await resolver.resolve(
                    value, _field_of(key), python_literals=is_code and key == "code"
                )
                for key, value in node.extra.items()
            }
        return ResolvedConfig(config, tuple(resolver.warnings))

    async def _render_outside(
        self, text: str, context: Mapping[str, Any], *, python_literals: bool
    ) -> str:
        if len(text) > MAX_TEMPLATE_CHARS:
            raise ExpressionFailed(f"template longer than {MAX_TEMPLATE_CHARS} characters")
        # A name that is not in the text cannot be meant; the rest need not travel.
        needed = {name: value for name, value in context.items() if name in text}
        try:
            return await self._pool.render(text, needed, python_literals=python_literals)
        except WorkerError as error:
            raise ExpressionFailed(str(error)) from error


def _field_of(key: str) -> str:
    return key if key == "input_template" else f"extra_config.{key}"


class _Resolver:
    """One pass over one config."""

    def __init__(self, context: Mapping[str, Any], templates: Templates, *, strict: bool) -> None:
        self._context = context
        self._templates = templates
        self._strict = strict
        self._rendered = 0
        self.warnings: list[Warning_] = []

    async def resolve(self, value: Any, field: str, *, python_literals: bool = False) -> Any:
        if isinstance(value, dict):
            return {
                key: await self.resolve(inner, f"{field}.{key}") for key, inner in value.items()
            }
        if isinstance(value, list):
            return [
                await self.resolve(inner, f"{field}.{index}") for index, inner in enumerate(value)
            ]
        if not isinstance(value, str) or _is_lone_path(field, value):
            return value
        if field.startswith(_MAPPING) and (path := _LONE_PATH.fullmatch(value)):
            found = walk(self._context, split_path(path[1]))
            if found is not msgspec.UNSET:
                return found
        if has_expression(value):
            self._rendered += 1
            if self._rendered > MAX_TEMPLATES:
                return self._skip(value, field)
        try:
            return await self._templates.render(
                value, self._context, python_literals=python_literals
            )
        except ExpressionFailed as error:
            return self._keep(value, field, str(error))

    def _skip(self, value: str, field: str) -> str:
        """Leave *value* as it is; the first one left tells of all."""
        if self._rendered > MAX_TEMPLATES + 1:
            return value
        return self._keep(value, field, f"more than {MAX_TEMPLATES} templates in one config")

    def _keep(self, value: str, field: str, message: str) -> str:
        if self._strict:
            raise NodeError(
                f"Expression in '{field}' failed: {message}",
                code="ExpressionError",
                retryable=False,
            )
        self.warnings.append(
            {
                "code": "expression_unresolved",
                "field": field,
                "message": message,
                "template": value[:_SHOWN_CHARS],
            }
        )
        return value


def _is_lone_path(field: str, value: str) -> bool:
    return bool(_PATH_FIELD.fullmatch(field) and _LONE_PATH.fullmatch(value))
