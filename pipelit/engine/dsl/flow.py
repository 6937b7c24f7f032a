"""How steps follow each other. Contract: engine.md §27.3 "Flow"."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pipelit.engine.definition import END
from pipelit.engine.dsl.document import Step
from pipelit.engine.dsl.draft import Draft
from pipelit.engine.dsl.errors import BuildError
from pipelit.engine.dsl.step_types import rules_of

STOP = "end"
FALLBACK = "__other__"


class _Wiring:
    """The steps of one document and what each of them may be followed by."""

    def __init__(self, written: Sequence[Step], others: Collection[str]) -> None:
        steps = list(all_steps(written))
        self._ids = {step.id for step in steps} | set(others)
        # A step that is named as a branch, or that handles errors, is entered only as such.
        self._claimed = {step.id for step in steps if step.component_type == "error_handler"}
        for step in steps:
            self._claimed |= {target for _, target in branches(step)}

    def successors(self, steps: Sequence[Step], position: int) -> list[str]:
        """Return what follows the step unconditionally; empty where the flow ends."""
        step = steps[position]
        if step.keys.get("next") is not None:
            return [self.known(step, name) for name in _names(step.keys["next"]) if name != STOP]
        if step.component_type == "switch":
            return []
        following = (s.id for s in steps[position + 1 :] if s.id not in self._claimed)
        return [next_id] if (next_id := next(following, None)) else []

    def known(self, step: Step, name: str) -> str:
        """Return *name* if it is a step.

        Raises:
            BuildError: it is none.
        """
        if name not in self._ids:
            raise BuildError(f"Step '{step.id}' refers to unknown step '{name}'")
        return name


def connect_steps(draft: Draft, steps: Sequence[Step], others: Collection[str] = ()) -> None:
    """Draw every flow edge that leaves one of *steps*.

    Args:
        others: nodes that are there already; steps may name them.

    Raises:
        BuildError: a step names one that is not there.
    """
    _connect(draft, _Wiring(steps, others), steps, loop_id=None)


def branches(step: Step) -> list[tuple[str, str]]:
    """Return where a switch leads: (condition value, target)."""
    if step.component_type != "switch":
        return []
    routes = [rule["route"] for rule in rules_of(step.keys) if rule.get("route")]
    found = [(str(route), str(route)) for route in routes]
    if step.keys.get("default"):
        found.append((FALLBACK, str(step.keys["default"])))
    return found


def all_steps(steps: Sequence[Step]) -> Iterator[Step]:
    """Yield the steps and those of their bodies, in the order of the document."""
    for step in steps:
        yield step
        yield from all_steps(step.body)


def _connect(draft: Draft, wiring: _Wiring, steps: Sequence[Step], loop_id: str | None) -> None:
    for position, step in enumerate(steps):
        routes = branches(step)
        for value, name in routes:
            target = END if name == STOP else wiring.known(step, name)
            draft.connect(step.id, target, edge_type="conditional", value=value)
        successors = wiring.successors(steps, position)
        for target in successors:
            draft.connect(step.id, target)
        if loop_id is not None and not successors and not routes:
            draft.connect(step.id, loop_id, label="loop_return")
        for name in _names(step.keys.get("for")) if step.component_type == "error_handler" else ():
            draft.connect(wiring.known(step, name), step.id)
        if step.body:
            draft.connect(step.id, step.body[0].id, label="loop_body")
            _connect(draft, wiring, step.body, loop_id=step.id)


def _names(written: Any) -> list[str]:
    if written is None:
        return []
    return [str(name) for name in (written if isinstance(written, list) else [written])]
