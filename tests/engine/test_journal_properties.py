"""Any graph, any failures, any interleaving: a run ends, runs nothing twice, and can be rebuilt."""

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine.changes import Ending
from pipelit.engine.graph import Plan
from pipelit.engine.journal import RunState
from pipelit.engine.outcome import Outcome, Usage
from pipelit.engine.routing import continues, has_error_edge, is_handled, taken_targets
from pipelit.engine.takeover import Takeover
from tests.engine.examples import many
from tests.engine.runs import ROUTES, Run, check_story, plan_of, random_graph

MAX_NODES = 60


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A graph and what its nodes will do. `fails`: how often each attempt fails; 4 = for good.

    In a loop's body a node fails for good in some iterations only. `continuing`: loops that go on.
    """

    edges: tuple[str, ...]
    fails: dict[str, int]
    routes: dict[str, str]
    waits: frozenset[str]
    before: frozenset[str]
    after: frozenset[str]
    continuing: frozenset[str]
    max_parallel: int
    seeds: tuple[int, int]
    salt: int

    def plan(self) -> Plan:
        """Compile the graph."""
        return plan_of(
            *self.edges, before=self.before, after=self.after, continuing=self.continuing
        )

    def fails_at(self, plan: Plan, node: str, iteration: str) -> int:
        """How often the node fails in this iteration."""
        in_loop = node in plan.loop_of
        times = self.fails[node]
        return 0 if times == 4 and in_loop and self._chance(node, iteration) < 0.5 else times

    def route_at(self, node: str, iteration: str) -> str:
        """The route that a switch chooses; other iterations choose others."""
        turned = self._chance(node, iteration) < 0.3
        return ROUTES[int(self._chance(iteration, node) * 3)] if turned else self.routes[node]

    def items(self, node: str, iteration: str) -> list[Any]:
        """The items of a loop."""
        return list(range(int(self._chance(node, "items", iteration) * 4)))

    def _chance(self, *what: str) -> float:
        return Random(f"{self.salt}{what}").random()


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(1, MAX_NODES) | st.integers(MAX_NODES // 2, MAX_NODES))
    random = Random(draw(st.integers(0, 2**32)))
    names, edges = random_graph(random, count)
    continuing = frozenset(n for n in names if n[0] == "l" and random.random() < 0.7)
    plan = plan_of(*edges, continuing=continuing)
    failing = random.random() < 0.7
    return Case(
        edges=edges,
        fails={n: _times(random, plan, n) if failing else 0 for n in names},
        routes={n: random.choice([*ROUTES, "elsewhere"]) for n in names},
        waits=frozenset(n for n in names if n[0] == "n" and random.random() < 0.1),
        before=frozenset(n for n in names if random.random() < 0.1),
        after=frozenset(n for n in names if random.random() < 0.1),
        continuing=continuing,
        max_parallel=random.randint(1, 5),
        seeds=(random.randint(0, 10**6), random.randint(0, 10**6)),
        salt=random.randint(0, 10**6),
    )


def _times(random: Random, plan: Plan, node: str) -> int:
    """How often a node fails; mostly for good only where that does not end the run."""
    handled = node in plan.nodes and is_handled(plan, node)
    return random.choice([0, 0, 1, 4, 4]) if handled else random.choice([0] * 40 + [1, 2] * 5 + [4])


def play(
    case: Case,
    plan: Plan,
    seed: int,
    make: Callable[..., Run] = Run,
    *,
    takeover: Takeover | None = None,
) -> Run:
    """Let the run happen, completions, timers and crashes in the order that *seed* chooses."""
    run = make(plan, max_parallel=case.max_parallel)
    chance = Random(seed)
    run.begin(takeover=takeover)
    check(run, case)
    moved = 0
    while run.ending is None:
        timers = sorted(run.state.retry_at.values())
        waiting = list(run.state.waiting)
        unasked, asked = list(run.state.unasked), list(run.state.questions)
        moves = [*run.running, *waiting, *(["retry"] if timers else []), *unasked]
        assert run.interrupted == (not moves), "stuck, or not"
        move = chance.choice([*moves, *asked])
        if isinstance(move, tuple):
            run.ask(move[0], move[2])
        elif move in asked:
            run.answer(move)
        elif move == "retry":
            run.now = max(run.now, timers[0])
            run.start_ready()
        elif move in waiting:
            run.now = max(run.now, run.state.waiting[move].resume_at)
            run.succeed(move, run.state.waiting[move].outcome)
        else:
            finish(run, case, move)
        moved += 1
        if run.ending is None and chance.random() < 2 / (moved + 20):
            run.recover()
        if moved < 60 or chance.random() < 0.05 or run.ending is not None:
            check(run, case)
    return run


def finish(run: Run, case: Case, node: str) -> None:
    iteration = run.state.iteration_of(node)
    failures = case.fails_at(run.state.plan, node, iteration)
    attempt = run.state.attempts.get(node, 0)
    if failures == 4 and attempt == 3:
        if is_handled(run.state.plan, node):
            run.handle(node)
        else:
            run.end(Ending(status="failed", failed_node=node), failed=node)
    elif attempt < failures:
        run.retry(node, delay=float(2**attempt))
    elif node in case.waits:
        run.wait(node, 5.0, Outcome(ports=ports(node, iteration)))
    elif node[0] == "l":
        run.loop(node, *case.items(node, iteration))
    else:
        route = case.route_at(node, iteration) if node[0] == "s" else None
        report = msgspec.structs.replace(Outcome(ports={}).report, usage=Usage(llm_calls=1))
        run.succeed(node, Outcome(ports=ports(node, iteration), route=route, report=report))


def ports(node: str, iteration: str) -> dict[str, Any]:
    return {"output": f"{node}@{iteration}"}


def check(run: Run, case: Case) -> None:
    """The state is the fold of what was stored, and no more runs than may."""
    assert contents(run.state) == contents(run.mirror)
    assert len(run.state.in_flight) <= case.max_parallel
    assert sorted(run.running) == sorted(run.state.in_flight)
    assert run.state.settled == {}


def contents(state: RunState) -> dict[str, Any]:
    values = {name: value for name, value in vars(state).items() if name != "plan"}
    edges = vars(values.pop("_edges"))
    resolved = {name: edges[name] for name in ("_open", "_taken_by")}
    return {
        **values,
        **resolved,
        "ready": list(state.ready),
        "results": list(state.results.items()),
    }


class Expected:
    """How each node ends, straight from engine.md §12 and §13: a second opinion.

    `ended`: {node: ending}, of body nodes in the last iteration. `loose` are those of an iteration
    that was broken off: what has begun by then depends on what finished first.
    """

    def __init__(self, case: Case, plan: Plan) -> None:
        self.ended: dict[str, str] = {}
        self.loose: set[str] = set()
        self.results: dict[str, list[Any]] = {}  # {loop: its results}
        self._case, self._plan = case, plan
        nodes = [n for n in plan.snapshot.walked if n not in plan.loop_of]
        self._scope(nodes, taken_targets(plan, "t", "success", ""), ())

    def _scope(self, nodes: Any, alive: set[tuple[int, str]], at: tuple[int, ...]) -> bool:
        """Walk one scope; tell whether a failure broke it off."""
        iteration = ".".join(map(str, at)) or "0"
        for node in sorted(nodes, key=lambda name: int(name[1:])):
            entering = {(edge.id, node) for edge in self._plan.incoming[node]}
            if not entering & alive:
                self._skip(node)
                continue
            ending = "success"
            if self._case.fails_at(self._plan, node, iteration) == 4:
                ending = "failed"
            if node[0] == "l":
                ending = self._loop(node, ending, at, iteration)
            self.ended[node] = ending
            if ending == "failed" and not has_error_edge(self._plan, node):
                return True
            route = self._case.route_at(node, iteration)
            alive |= taken_targets(self._plan, node, ending, route)  # type: ignore[arg-type]
        return False

    def _skip(self, node: str) -> None:
        self.ended[node] = "skipped"
        if node[0] == "l":
            self._skip_body(node)

    def _skip_body(self, loop: str) -> None:
        self.ended.update(dict.fromkeys(self._plan.bodies[loop].nodes, "skipped"))

    def _loop(self, loop: str, ending: str, at: tuple[int, ...], iteration: str) -> str:
        body = self._plan.bodies[loop]
        items = self._case.items(loop, iteration)
        self.results[loop] = []
        if ending == "failed" or not items or not body.own:
            self._skip_body(loop)
            return ending
        entered = {
            (edge.id, edge.target_node_id)
            for edge in self._plan.outgoing[loop]
            if edge.edge_label == "loop_body" and edge.target_node_id[0] != "h"
        }
        for index in range(len(items)):
            self.loose -= set(body.nodes)
            if self._scope(body.own, set(entered), (*at, index)):
                self.loose |= set(body.nodes)
                if not continues(self._plan, loop):
                    return "failed"
                self.results[loop].append(dict.fromkeys(body.returns, "broken"))
            else:
                here = ".".join(map(str, (*at, index)))
                self.results[loop].append({n: self._given(n, here) for n in body.returns})
        return "success"

    def _given(self, node: str, iteration: str) -> Any:
        if self.ended[node] != "success":
            return None
        return self.results[node] if node[0] == "l" else ports(node, iteration)


def reduced(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say of the results of a loop only what does not depend on what finished first."""
    return [{node: _reduced(given) for node, given in one.items()} for one in results]


def _reduced(given: Any) -> Any:
    if given is not None and "error_code" in given:
        return "broken"
    return reduced(given["results"]) if given is not None and "results" in given else given


def require(run: Run, expected: Expected) -> None:
    """The run ended as expected."""
    plan, endings = run.state.plan, run.endings()
    assert {n: e for n, e in endings.items() if n not in expected.loose} == {
        n: e for n, e in expected.ended.items() if n not in expected.loose
    }
    assert endings.keys() == set(plan.snapshot.walked)
    for loop in plan.bodies.keys() - expected.loose:
        if endings[loop] == "success":
            found = run.state.node_outputs[loop]["results"]
            assert reduced(found) == expected.results[loop]


@many(400)
@given(cases())
def test_a_run_of_any_graph_ends_the_same_whatever_finishes_first(case: Case) -> None:
    """Never stuck, nothing twice, slots kept, the state a fold of what is stored."""
    plan = case.plan()

    stories = [play(case, plan, seed) for seed in case.seeds]

    for run in stories:
        assert run.ending is not None
        check_story(run.events, plan)
        if run.ending.status == "completed":
            require(run, Expected(case, plan))
            assert run.state.unresolved() == ()
    assert stories[0].ending is not None
    assert stories[1].ending is not None
    assert stories[0].ending.status == stories[1].ending.status
