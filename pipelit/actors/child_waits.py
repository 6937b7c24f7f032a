"""How one attempt waits for its children: its clocks stand, and it takes no slot."""

from collections.abc import Callable, Sequence

from pipelit.actors.attempt_ports import Asker, Tell
from pipelit.actors.attempt_time import AttemptTime
from pipelit.actors.children import Children
from pipelit.actors.execution_messages import Counted, ExecutionMessage, Resumed, Suspended
from pipelit.nodes.children import ChildBatch, ChildEnd


class ChildWaits:
    """Owned by an attempt; an agent may wait in several tool calls at once."""

    def __init__(self, children: Children, *, post: Callable[[ExecutionMessage], None]) -> None:
        """`post`: tells the execution's actor."""
        self._children = children
        self._post = post
        self._waits = 0
        self.ids: tuple[str, ...] = ()

    async def run(
        self, asker: Asker, batch: ChildBatch, tell: Tell, time: AttemptTime
    ) -> tuple[ChildEnd, ...]:
        """Run children and wait for them. See `Children.run`."""
        begun = False

        def begin(ids: Sequence[str]) -> None:
            nonlocal begun
            begun = True
            self.ids = tuple(dict.fromkeys((*self.ids, *ids)))
            self._waits += 1
            self._post(Suspended(asker.node_id))

        with time.standing():
            try:
                ends = await self._children.run(asker, batch, tell, begin)
                self._post(Counted(await self._children.descendants()))
                return ends
            finally:
                self._waits -= begun
                if begun and not self._waits:
                    self._post(Resumed(asker.node_id))
