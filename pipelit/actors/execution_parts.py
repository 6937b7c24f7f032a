"""What executions share."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pipelit.actors.ledger import Outlets
from pipelit.actors.node_task import NodeRunner
from pipelit.actors.plans import Plans
from pipelit.actors.switches import Switches
from pipelit.clock import Clock, Ids
from pipelit.engine.graph import Plan
from pipelit.engine.journal import RunState
from pipelit.engine.limits import SizeLimits
from pipelit.engine.steps import Narrator
from pipelit.store import Store
from pipelit.store.queries.journal import Loaded, Owner


@dataclass(frozen=True, kw_only=True)
class ExecutionParts:
    """What every execution actor is built from."""

    store: Store
    owner: Owner
    clock: Clock
    ids: Ids
    plans: Plans
    runner: NodeRunner
    max_parallel: int
    max_messages: int
    size_limits: SizeLimits
    answer_seconds: float = 300.0
    """How long a question to a person stays open."""
    default_limit: int = 900
    """Seconds of a child whose workflow sets no limit."""
    outlets: Outlets = field(default_factory=Outlets)
    switches: Switches = field(default_factory=Switches)
    on_begun: Callable[[float], object] = lambda _: None
    """Told of each execution that begins how many seconds it had waited; for metrics."""

    def narrator(self, loaded: Loaded, plan: Plan) -> Narrator:
        """Return what tells the story of a run of *plan*, from its beginning."""
        return Narrator(
            loaded.id,
            loaded.workflow_id,
            loaded.workflow_slug,
            RunState(plan, max_messages=self.max_messages),
            max_parallel=self.max_parallel,
            size_limits=self.size_limits,
        )
