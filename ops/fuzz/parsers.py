"""Fuzz the parsers and a running server for some minutes: tests/security/test_fuzz_*.py.

Usage: python ops/fuzz/parsers.py MINUTES. Runs the same properties as the tests, with many more
examples and a new seed each round, until the time is over. Exit code 1: a property is broken; the
failing example and its seed are printed.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = 300
"""Of each property in a round."""


def main(minutes: float) -> int:
    ends = time.monotonic() + minutes * 60
    files = sorted(map(str, (ROOT / "tests" / "security").glob("test_fuzz_*.py")))
    environment = os.environ | {"PIPELIT_FUZZ_EXAMPLES": str(EXAMPLES)}
    rounds = 0
    while rounds == 0 or time.monotonic() < ends:
        seed = random.randrange(2**32)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "0",
            "--timeout",
            "900",
            "-o",
            "faulthandler_timeout=0",
            *files,
        ]
        command.append(f"--hypothesis-seed={seed}")
        if subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode:
            print(f"broken with --hypothesis-seed={seed}")
            return 1
        rounds += 1
        print(f"round {rounds}: {EXAMPLES} examples of each property, seed {seed}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
