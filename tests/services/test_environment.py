"""Looking at the machine, with programs of our own making. Contract: beyond.md §9."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from trio.testing import MockClock

from pipelit.services.environment import find_container, look
from pipelit.services.settings_service import mask, unmask

HINT = "Allow unprivileged user namespaces for the server."


def install(directory: Path, **scripts: str) -> Mapping[str, str]:
    """Put shell scripts on a PATH of their own and return the environment that names it."""
    for name, script in scripts.items():
        program = directory / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o700)
    return {"PATH": str(directory), "SECRET": "x"}


async def test_a_machine_without_anything(tmp_path: Path) -> None:
    """Nothing is found, and the refusal says what to install."""
    found = await look({"PATH": str(tmp_path)})

    assert (found.programs, found.versions) == ({}, {})
    assert found.sandbox_problem == (
        "No sandbox available. Install bubblewrap (apt install bubblewrap)."
    )
    assert found.os == os.uname().sysname


async def test_versions_are_read_from_what_programs_say(tmp_path: Path) -> None:
    """A number anywhere in the answer; no answer is no version. Probes see no secrets."""
    environ = install(
        tmp_path,
        python3="echo Python 3.11.7",
        pip3='echo "pip ${SECRET}24.0 from /x (python 3.11)"',
        node="echo v20.1.0-rc.1",
        npm="exit 1",
        bwrap='test "$1" = --unshare-all',
    )

    found = await look(environ)

    assert found.versions == {"python3": "3.11.7", "pip3": "24.0", "node": "20.1.0-rc.1"}
    assert found.programs["npm"] == str(tmp_path / "npm")
    assert found.sandbox_problem == ""


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (
            "echo first >&2; echo 'bwrap: No permissions.' >&2; exit 1",
            f"Sandbox cannot start: bwrap: No permissions. {HINT}",
        ),
        ("exit 3", f"Sandbox cannot start: exit code 3. {HINT}"),
    ],
)
async def test_a_sandbox_that_does_not_work_says_why(
    tmp_path: Path, script: str, problem: str
) -> None:
    """The last line of its complaint, or its exit code."""
    found = await look(install(tmp_path, bwrap=script))

    assert found.sandbox_problem == problem


async def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    """A program that is no program."""
    (tmp_path / "bwrap").write_text("#!/nowhere/interpreter\n")
    (tmp_path / "bwrap").chmod(0o700)

    found = await look({"PATH": str(tmp_path)})

    assert found.sandbox_problem == f"Sandbox cannot start: No such file or directory. {HINT}"


async def test_what_hangs_is_not_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The look ends in time; what hung counts as missing and is killed."""
    hanging = "trap '' TERM; sleep 1000 & wait; sleep 1000"

    found = await look(install(tmp_path, bwrap=hanging, python3=hanging))

    assert found.versions == {}
    assert found.sandbox_problem.startswith("Sandbox cannot start: no answer within ")
    assert autojump_clock.current_time() <= 15


@pytest.mark.parametrize(
    ("environ", "files", "kind"),
    [
        ({}, {}, None),
        ({}, {"proc/1/cgroup": "0::/\n"}, None),
        ({}, {".dockerenv": ""}, "docker"),
        ({}, {"run/.containerenv": "", ".dockerenv": ""}, "podman"),
        ({}, {"proc/1/cgroup": "1:cpu:/docker/abc\n"}, "docker"),
        ({}, {"proc/1/cgroup": "1:cpu:/system.slice/containerd.service/x\n"}, "containerd"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {".dockerenv": ""}, "kubernetes"),
        ({"CODESPACES": "true"}, {".dockerenv": ""}, "codespaces"),
        ({"GITPOD_WORKSPACE_ID": "x"}, {}, "gitpod"),
    ],
)
def test_containers_are_known_by_their_marks(
    tmp_path: Path, environ: Mapping[str, str], files: Mapping[str, str], kind: str | None
) -> None:
    """What holds the container is more telling than the container."""
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    assert find_container(environ, tmp_path) == kind


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://u:p@h/d", "postgresql://u:***@h/d"),
        ("postgresql+psycopg://u:p:/q@h:5432/d", "postgresql+psycopg://u:***@h:5432/d"),
        ("postgresql://h/d?user=u&password=p", "postgresql://h/d?user=u&password=***"),
        (
            "postgresql://u:p@h/d?sslpassword=q&x=1",
            "postgresql://u:***@h/d?sslpassword=***&x=1",
        ),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("sqlite:////a:b@c/d.db", "sqlite:////a:b@c/d.db"),
        ("redis://:p@h", "redis://:***@h"),
        ("", ""),
    ],
)
def test_passwords_in_urls_are_masked_and_come_back(url: str, masked: str) -> None:
    """Wherever a driver reads one."""
    assert mask(url) == masked
    assert unmask(masked, url) == url


def test_without_a_password_stars_are_one() -> None:
    """Nothing to put in their place."""
    assert unmask("redis://:***@h", "redis://h") == "redis://:***@h"
