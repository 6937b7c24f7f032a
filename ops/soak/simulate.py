"""Simulates a whole server from a seed, and audits what came of it.

Usage: python ops/soak/simulate.py [--seeds N] [--first S] [--seed S] [--plant BUG] [--jobs J]

Each seed decides everything: workflows, clients, the order of tasks, late and failing ports,
crashes of actors, deaths of the process, jumps of the clock. The same seed on the same commit is
the same history; `--seed S` replays one. `--plant` breaks the product on purpose: the exit code is
then 0 if some seed noticed; `--plant all` tries every bug. See docs/soak.md.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).absolute().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of texts must be the same in every replay.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})

from ops.soak.plants import PLANTS  # noqa: E402 - the path to it is set above
from ops.soak.seed import Result, run_seed  # noqa: E402

SHOWN = 12


def run_many(seeds: Sequence[int], plant: str | None, jobs: int) -> Iterator[Result]:
    """Simulate *seeds* in so many processes, results in the order of the seeds."""
    # Fresh processes now and then: a simulated server that was killed leaves memory behind.
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=25) as pool:
        yield from pool.imap(partial(run_seed, plant=plant), seeds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return the exit code."""
    options = _parse(arguments)
    seeds = range(options.first, options.first + options.seeds)
    seeds = seeds if options.seed is None else range(options.seed, options.seed + 1)
    if options.plant is None:
        return 1 if _simulate(seeds, None, options.jobs, verbose=len(seeds) == 1) else 0
    plants = sorted(PLANTS) if options.plant == "all" else [options.plant]
    missed = [plant for plant in plants if not _find(seeds, plant, options.jobs)]
    return 1 if missed else 0


def _find(seeds: Sequence[int], plant: str, jobs: int) -> bool:
    found = _simulate(seeds, plant, jobs, verbose=False)
    print(f"{plant}: {'found' if found else 'NOT FOUND'} ({PLANTS[plant].bug})")
    return bool(found)


def _simulate(seeds: Sequence[int], plant: str | None, jobs: int, *, verbose: bool) -> int:
    """Simulate *seeds*, with a planted bug up to the first that notices; return how many did."""
    found, totals, started = 0, Counter[str](), time.perf_counter()
    for result in run_many(seeds, plant, min(jobs, len(seeds))):
        totals.update(result.counts)
        if result.violations or verbose:
            _show(result, plant)
        if result.violations:
            found += 1
            if plant is not None:
                break
    spent = time.perf_counter() - started
    print(f"{spent:.0f} s, {brief(totals)}; seeds with violations: {found}", flush=True)
    return found


def _show(result: Result, plant: str | None) -> None:
    print(f"seed {result.seed}: history {result.digest}, {brief(result.counts)}")
    for sentence in result.violations[:SHOWN]:
        print(f"  {sentence[:500]}")
    if len(result.violations) > SHOWN:
        print(f"  and {len(result.violations) - SHOWN} more")
    if result.violations:
        print(f"  replay: {_replay(result.seed, plant)}", flush=True)


def brief(counts: Mapping[str, int]) -> str:
    """Write counts in one line."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Simulate a whole server and audit it.")
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="one seed, to replay it")
    parser.add_argument("--plant", choices=[*sorted(PLANTS), "all"], help="a bug to plant")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    return parser.parse_args(arguments)


def _replay(seed: int, plant: str | None) -> str:
    """Return the one command that replays a seed, with the commit it belongs to."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    commit = described.stdout.strip().removesuffix("-dirty") or "HEAD"
    planted = f" --plant {plant}" if plant is not None else ""
    return f"git checkout {commit} && python ops/soak/simulate.py --seed {seed}{planted}"


if __name__ == "__main__":
    sys.exit(main())
