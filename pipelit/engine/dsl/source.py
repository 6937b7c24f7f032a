"""From text to plain JSON values, whatever the text tries.

YAML is read without tags, to a bounded depth, with a bounded number of alias expansions.

Contract: engine.md §27.1, workflows.md "validate-dsl".
"""

import math
from typing import Any

import yaml

from pipelit.engine.dsl.errors import ParseError

MAX_CHARS = 262_144
MAX_EXPANSIONS = 100
MAX_DEPTH = 100
MAX_VALUES = 200_000
"""Values of a document after expansion: a hundred copies of a large anchor are refused too."""

MAX_NUMBER_CHARS = 400
"""Of one number: reading one in base 60 takes time with the square of its length."""

_TOO_MUCH = "the document is too large or nested too deeply"

_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)
_NUMBER_TAGS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})


class _Loader(yaml.SafeLoader):
    """Leaves dates the text they are, JSON has none, and stops early where nesting is absurd."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the library's own class attribute
        first: [(tag, regex) for tag, regex in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(_TOO_MUCH)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def load_mapping(text: str) -> dict[str, Any]:
    """Return the document as plain JSON.

    Raises:
        ParseError: it is too long, no YAML, or no mapping.
    """
    if len(text) > MAX_CHARS:
        raise ParseError(f"Invalid YAML: longer than {MAX_CHARS} characters")
    try:
        value = _load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ParseError(f"Invalid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ParseError("DSL must be a YAML mapping (dict)")
    return value


def _load(text: str) -> Any:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _Census().visit(root, 0)
        return _plain(loader.construct_document(root))
    finally:
        loader.dispose()


class _Census:
    """Counts what a document would expand to, before anything is built of it."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._expansions = 0
        self._values = 0

    def visit(self, node: yaml.Node, depth: int) -> None:
        """Count *node* and all below it.

        Raises:
            ValueError: a limit is exceeded, or a tag asks for more than JSON.
        """
        self._values += 1
        self._expansions += id(node) in self._seen
        self._seen.add(id(node))
        if node.tag not in _PLAIN_TAGS:
            raise ValueError(f"tag {node.tag} is not allowed")
        if node.tag in _NUMBER_TAGS and len(node.value) > MAX_NUMBER_CHARS:
            raise ValueError(f"a number is longer than {MAX_NUMBER_CHARS} characters")
        if self._expansions > MAX_EXPANSIONS:
            raise ValueError(f"more than {MAX_EXPANSIONS} alias expansions")
        if self._values > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError(_TOO_MUCH)
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self.visit(item, depth + 1)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                self.visit(key, depth + 1)
                self.visit(value, depth + 1)


def _plain(value: Any) -> Any:
    """Return *value* as JSON has it: text keys, finite numbers, no object shared."""
    if isinstance(value, dict):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    return value


def _key(key: object) -> str:
    if isinstance(key, bool):
        return str(key).lower()
    return "null" if key is None else str(key)
