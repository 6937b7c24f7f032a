"""What attempts ask of those who prepare them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from pipelit.actors.attempt_time import AttemptTime
from pipelit.engine.definition import NodeDef
from pipelit.nodes.base import RunEvent
from pipelit.nodes.children import ChildBatch, ChildEnd

Tell: TypeAlias = Callable[[tuple[str, ...]], Sequence[RunEvent]]
"""Child ids -> the events that say that a node waits for them."""


class Asker(msgspec.Struct, frozen=True, kw_only=True):
    """The node that wants children, and what it knows of the user."""

    node_id: str
    user_context: dict[str, Any]


class ResolvedConfig(Protocol):
    """A node's config with its expressions resolved, and what could not be."""

    @property
    def config(self) -> dict[str, Any]:
        """The config object."""

    @property
    def warnings(self) -> Sequence[dict[str, Any]]:
        """Warnings `expression_unresolved`."""


class Expressions(Protocol):
    """Resolves the expressions of a config. Raises `NodeError` where the node is strict."""

    async def resolve(self, node: NodeDef, context: Mapping[str, Any]) -> ResolvedConfig:
        """Resolve every expression of *node*'s config against *context* (engine.md §20.4)."""


class Waits(Protocol):
    """How an attempt waits for its children."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Those it has started or found."""

    async def run(
        self,
        asker: Asker,
        batch: ChildBatch,
        tell: Tell,
        time: AttemptTime,
    ) -> tuple[ChildEnd, ...]:
        """Run children and wait for them, while the clocks of *time* stand."""
