"""Any graph, any failures, any interleaving: a run ends, runs nothing twice, and can be rebuilt."""

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelit.engine.changes import Ending
from pipelit.engine.graph import Plan
from pipelit.engine.journal import RunState
from pipelit.engine.outcome import Outcome, Usage
from pipelit.engine.routing import has_error_edge, taken_targets
from pipelit.engine.takeover import Takeover
from tests.engine.runs import ROUTES, Run, check_story, plan_of, random_graph

MAX_NODES = 60


class Case(msgspec.Struct, frozen=True):
    """A graph and what its nodes will do. `fails`: how often each attempt fails; 4 = for good."""

    edges: tuple[str, ...]
    fails: dict[str, int]
    routes: dict[str, str]
    waits: frozenset[str]
    before: frozenset[str]
    after: frozenset[str]
    max_parallel: int
    seeds: tuple[int, int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(1, MAX_NODES))
    random = Random(draw(st.integers(0, 2**32)))
    names, edges = random_graph(random, count)
    failing = random.random() < 0.5
    return Case(
        edges=edges,
        fails={n: random.choice([0, 0, 0, 1, 2, 4]) if failing else 0 for n in names},
        routes={n: random.choice([*ROUTES, "elsewhere"]) for n in names},
        waits=frozenset(n for n in names if n[0] == "n" and random.random() < 0.1),
        before=frozenset(n for n in names if random.random() < 0.1),
        after=frozenset(n for n in names if random.random() < 0.1),
        max_parallel=random.randint(1, 5),
        seeds=(random.randint(0, 10**6), random.randint(0, 10**6)),
    )


def play(
    case: Case,
    plan: Plan,
    seed: int,
    make: Callable[..., Run] = Run,
    *,
    takeover: Takeover | None = None,
) -> Run:
    """Let the run happen, completions and timers in the order that *seed* chooses."""
    run = make(plan, max_parallel=case.max_parallel)
    chance = Random(seed)
    run.begin(takeover=takeover)
    check(run, case)
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
        check(run, case)
    return run


def finish(run: Run, case: Case, node: str) -> None:
    failures = case.fails[node]
    attempt = run.state.attempts.get(node, 0)
    if failures == 4 and attempt == 3:
        if has_error_edge(run.state.plan, node):
            run.handle(node)
        else:
            run.end(Ending(status="failed", failed_node=node), failed=node)
    elif attempt < failures:
        run.retry(node, delay=float(2**attempt))
    elif node in case.waits:
        run.wait(node, 5.0)
    else:
        route = case.routes[node] if node[0] == "s" else None
        report = msgspec.structs.replace(Outcome(ports={}).report, usage=Usage(llm_calls=1))
        run.succeed(node, Outcome(ports={"output": node}, route=route, report=report))


def check(run: Run, case: Case) -> None:
    """The state is the fold of what was stored, and no more runs than may."""
    assert contents(run.state) == contents(run.mirror)
    assert len(run.state.started - run.state.waiting.keys()) <= case.max_parallel
    if run.ending is None:
        assert set(run.running) == run.state.started - run.state.waiting.keys()


def contents(state: RunState) -> dict[str, Any]:
    values = {name: value for name, value in vars(state).items() if name != "plan"}
    edges = vars(values.pop("_edges"))
    resolved = {name: edges[name] for name in ("_open", "_taken_by")}
    return {**values, **resolved, "ready": list(state.ready), "results": list(state.results.items())}


def expected(case: Case, plan: Plan) -> dict[str, str]:
    """Say how each node ends, straight from engine.md §12: a second opinion."""
    ended: dict[str, str] = {"t": "success"}
    alive = taken_targets(plan, "t", "success", "")
    for node in sorted(plan.snapshot.walked, key=lambda name: int(name[1:])):
        entering = {(edge.id, node) for edge in plan.incoming[node]}
        if not entering & alive:
            ended[node] = "skipped"
            continue
        ended[node] = "failed" if case.fails[node] == 4 else "success"
        alive |= taken_targets(plan, node, ended[node], case.routes[node])  # type: ignore[arg-type]
    del ended["t"]
    return ended


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_a_run_of_any_graph_ends_the_same_whatever_finishes_first(case: Case) -> None:
    """Never stuck, nothing twice, slots kept, the state a fold of what is stored."""
    plan = plan_of(*case.edges, before=case.before, after=case.after)

    stories = [play(case, plan, seed) for seed in case.seeds]

    for run in stories:
        assert run.ending is not None
        check_story(run.events, plan)
        if run.ending.status == "completed":
            assert run.endings() == expected(case, plan)
            assert run.state.unresolved() == ()
    assert stories[0].ending is not None
    assert stories[1].ending is not None
    assert stories[0].ending.status == stories[1].ending.status
