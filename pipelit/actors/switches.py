"""Stops what an execution runs at once, by its id, whatever its actor is waiting for.

An actor that waits for a full disk hears nothing, but its nodes must not go on talking to the
world meanwhile. Contract: engine.md §11.2, §11.3.
"""

from weakref import WeakValueDictionary

import trio

from pipelit.engine.changes import Ending

CANCELLED = Ending(status="cancelled")


class Switch:
    """Holds the running nodes of one execution. Off once it is to end."""

    def __init__(self, parent_id: str | None) -> None:
        self.parent_id = parent_id
        self.ending: Ending | None = None
        self._scopes: dict[str, trio.CancelScope] = {}

    def add(self, node: str, scope: trio.CancelScope) -> None:
        """Take note of a running node; it stops at once if the execution is to end."""
        self._scopes[node] = scope
        if self.ending is not None:
            scope.cancel(reason=f"execution {self.ending.status}")

    def remove(self, node: str) -> None:
        """Forget a node that has ended."""
        self._scopes.pop(node, None)

    def stop(self, ending: Ending) -> None:
        """Stop the nodes; the first ending wins."""
        if self.ending is None:
            self.ending = ending
        for scope in self._scopes.values():
            scope.cancel(reason=f"execution {self.ending.status}")


class Switches:
    """The switches of the executions that run on this server, by id."""

    def __init__(self) -> None:
        self._switches: WeakValueDictionary[str, Switch] = WeakValueDictionary()

    def open(self, execution_id: str, parent_id: str | None) -> Switch:
        """Return a new switch of an execution, whose actor keeps it."""
        switch = self._switches[execution_id] = Switch(parent_id)
        return switch

    def stop(self, execution_id: str, ending: Ending) -> None:
        """Stop an execution's nodes, and with them those of all its descendants."""
        switch = self._switches.get(execution_id)
        if switch is not None:
            switch.stop(ending)
        for child_id, child in list(self._switches.items()):
            if child.parent_id == execution_id and child.ending is None:
                self.stop(child_id, CANCELLED)
