"""Run the benchmarks of the server and print their table.

Usage: python ops/bench/all.py [NAME ...] [--seconds S] [--write FILE] [--record | --check]

NAME: runs, graphs, agents, viewers, lifecycle, lists; all without one. `--write`
puts the table into a file, `--record` keeps the costs as multiples of the baseline in
`recorded.json`, `--check` fails when one is more than a fifth above what is recorded there.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
from datetime import date
from pathlib import Path

import trio
from rig.figures import Row, baseline

NAMES = ("runs", "graphs", "agents", "viewers", "lifecycle", "lists")
RECORDED = Path(__file__).with_name("recorded.json")
TOLERANCE = 1.2
_MARKS = ("<!-- figures -->", "<!-- end of figures -->")


async def measure(names: list[str], seconds: float) -> tuple[list[Row], float]:
    """Return the rows of some benchmarks, and the baseline: the median of those around them."""
    rows: list[Row] = []
    baselines = [await baseline()]

    def tell(row: Row) -> None:
        print(row, flush=True)
        rows.append(row)

    for name in names:
        module = importlib.import_module(name)
        # Beside the program: the temporary directory may be memory.
        with tempfile.TemporaryDirectory(dir=".") as directory:
            await module.measure(Path(directory), seconds, tell)
        baselines.append(await baseline())
    return rows, sorted(baselines)[len(baselines) // 2]


def write_table(path: Path, rows: list[Row], unit: float) -> None:
    """Put the table between its marks in a document."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"Measured on {date.today():%Y-%m-%d}: {machine}; baseline {unit:.0f} ms.",
        "",
        "| What | Figures | Cost in baselines |",
        "|---|---|---|",
    ]
    for row in rows:
        cost = "" if row.cost is None else f"{row.cost / unit:.3f}"
        lines.append(f"| {row.name.strip()} | {row.text()} | {cost} |")
    before, _, rest = path.read_text().partition(_MARKS[0])
    after = rest.partition(_MARKS[1])[2]
    path.write_text(f"{before}{_MARKS[0]}\n" + "\n".join(lines) + f"\n{_MARKS[1]}{after}")


def check(rows: list[Row], unit: float) -> bool:
    """Compare the costs with the recorded ones; say which have grown."""
    recorded = json.loads(RECORDED.read_text())
    good = True
    for row in rows:
        if row.cost is None or row.name not in recorded:
            continue
        times = row.cost / unit / recorded[row.name]
        if times > TOLERANCE:
            print(f"{row.name}: {times:.2f} times the recorded cost")
            good = False
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *NAMES], default=[])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    rows, unit = trio.run(measure, options.names or list(NAMES), options.seconds)
    if options.write:
        write_table(options.write, rows, unit)
    if options.record:
        costs = {row.name: round(row.cost / unit, 4) for row in rows if row.cost is not None}
        RECORDED.write_text(json.dumps(costs, indent=2) + "\n")
    return 0 if not options.check or check(rows, unit) else 1


if __name__ == "__main__":
    sys.exit(main())
