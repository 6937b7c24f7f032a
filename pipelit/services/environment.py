"""What the machine offers to code in sandboxes. Contract: beyond.md §9 "Environment".

Two steps: look (processes and files, slow), then judge (pure).
"""

import os
import platform
import re
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import trio

from pipelit.nodes import bubblewrap

PROBE_DEADLINE = 15.0
RUNTIMES = ("python3", "pip3", "node", "npm")
TIER_1 = (
    *("bash", "cat", "ls", "cp", "mv", "mkdir", "rm", "chmod"),
    *("grep", "sed", "head", "tail", "wc"),
)
TIER_2 = (
    *("find", "sort", "awk", "xargs", "tee", "curl", "wget"),
    *("git", "tar", "unzip", "jq"),
)

_VERSION_TIMEOUT = 8.0
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)+[0-9A-Za-z.+-]*")

Container = Literal["docker", "podman", "kubernetes", "containerd", "codespaces", "gitpod"]


_IN_CGROUP: tuple[Container, ...] = ("docker", "containerd")


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """An interpreter or package manager."""

    available: bool
    version: str | None
    path: str | None


class ShellTool(msgspec.Struct, frozen=True, kw_only=True):
    """A program of the shell; without those of tier 1 no code runs."""

    available: bool
    tier: Literal[1, 2]


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """What the sandbox of the default workspace may use; nothing is sent to find out."""

    dns: bool
    http: bool


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, by name."""

    runtimes: dict[str, Runtime]
    shell_tools: dict[str, ShellTool]
    network: Network


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """Whether nodes that need a sandbox run here; the first thing that is missing."""

    passed: bool
    blocked_reason: str | None


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine as settings show it."""

    os: str
    arch: str
    container: Container | None
    bwrap_available: bool
    rootfs_ready: bool
    sandbox_mode: Literal["bwrap", "none"]
    capabilities: Capabilities
    tier1_met: bool
    tier2_warnings: list[str]
    gate: Gate


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at the machine found."""

    os: str
    arch: str
    container: Container | None
    programs: Mapping[str, str]
    """Name → path, of those that are there."""
    versions: Mapping[str, str]
    """Name → version, of those that told it in time."""
    sandbox_problem: str
    """The refusal of engine.md §29.1; empty when bubblewrap works."""


def judge(found: Findings, *, allow_network: bool) -> Environment:
    """Say what follows from *found*. Pure.

    Args:
        allow_network: of the default workspace.
    """
    works = not found.sandbox_problem
    missing = [name for name in TIER_1 if name not in found.programs]
    reasons = [found.sandbox_problem, *map(_not_available, missing)]
    blocked = next((reason for reason in reasons if reason), None)
    return Environment(
        os=found.os,
        arch=found.arch,
        container=found.container,
        bwrap_available=works,
        # A sandbox mounts its root from the host when it starts: nothing has to be prepared.
        rootfs_ready=works,
        sandbox_mode="bwrap" if works else "none",
        capabilities=Capabilities(
            runtimes={name: _runtime(name, found) for name in RUNTIMES},
            shell_tools={
                **{name: ShellTool(available=name in found.programs, tier=1) for name in TIER_1},
                **{name: ShellTool(available=name in found.programs, tier=2) for name in TIER_2},
            },
            network=Network(dns=allow_network, http=allow_network),
        ),
        tier1_met=not missing,
        tier2_warnings=[_not_available(name) for name in TIER_2 if name not in found.programs],
        gate=Gate(passed=blocked is None, blocked_reason=blocked),
    )


async def look(environ: Mapping[str, str], *, root: Path = Path("/")) -> Findings:
    """Look at the machine, for at most `PROBE_DEADLINE`; what takes longer counts as missing.

    Args:
        environ: the server's; probes see only where programs and the home directory are.
        root: where the marks of containers are looked for.
    """
    versions: dict[str, str] = {}
    programs: dict[str, str] = {}
    problem = bubblewrap.cannot_start(f"no answer within {PROBE_DEADLINE:.0f} s")
    container: Container | None = None
    probe_environ = {
        "PATH": environ.get("PATH", os.defpath),
        "HOME": environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
    }

    async def ask_version(name: str) -> None:
        version = await _find_version(programs[name], probe_environ)
        if version is not None:
            versions[name] = version

    with trio.move_on_after(PROBE_DEADLINE):
        programs |= await trio.to_thread.run_sync(
            _find_programs, probe_environ["PATH"], abandon_on_cancel=True
        )
        container = await trio.to_thread.run_sync(
            partial(find_container, environ, root), abandon_on_cancel=True
        )
        async with trio.open_nursery() as nursery:
            for name in RUNTIMES:
                if name in programs:
                    nursery.start_soon(ask_version, name)
            problem = await bubblewrap.find_problem(programs.get("bwrap"), probe_environ)
    return Findings(
        os=platform.system(),
        arch=platform.machine(),
        container=container,
        programs=programs,
        versions=versions,
        sandbox_problem=problem,
    )


def find_container(environ: Mapping[str, str], root: Path) -> Container | None:
    """Return what kind of container the server runs in, if marks of one are found. Blocks."""
    variables: dict[str, Container] = {
        "CODESPACES": "codespaces",
        "GITPOD_WORKSPACE_ID": "gitpod",
        "KUBERNETES_SERVICE_HOST": "kubernetes",
    }
    files: dict[str, Container] = {"run/.containerenv": "podman", ".dockerenv": "docker"}
    for name, kind in variables.items():
        if environ.get(name):
            return kind
    for name, kind in files.items():
        if (root / name).exists():
            return kind
    try:
        groups = (root / "proc/1/cgroup").read_text(errors="replace")
    except OSError:
        return None
    return next((kind for kind in _IN_CGROUP if kind in groups), None)


def _runtime(name: str, found: Findings) -> Runtime:
    path = found.programs.get(name)
    return Runtime(available=path is not None, version=found.versions.get(name), path=path)


def _not_available(name: str) -> str:
    return f"Tool '{name}' is not available"


def _find_programs(path: str) -> dict[str, str]:
    names = (*RUNTIMES, *TIER_1, *TIER_2, "bwrap")
    found = {name: shutil.which(name, path=path) for name in names}
    return {name: place for name, place in found.items() if place is not None}


async def _find_version(program: str, environ: Mapping[str, str]) -> str | None:
    try:
        with trio.fail_after(_VERSION_TIMEOUT):
            ended = await trio.run_process(
                [program, "--version"],
                env=dict(environ),
                check=False,
                capture_stdout=True,
                capture_stderr=True,
                deliver_cancel=bubblewrap.kill,
            )
    except (OSError, trio.TooSlowError):
        return None
    told = _VERSION.search(ended.stdout.decode(errors="replace"))
    return told[0] if told is not None else None
