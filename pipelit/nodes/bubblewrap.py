"""The sandbox bubblewrap makes, and whether it can make one here.

The root filesystem is the host's programs and libraries, read-only, and nothing else of the host.
Contract: engine.md §29.1, §29.2.
"""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import trio

from pipelit.nodes.process import limited

NOT_INSTALLED = "No sandbox available. Install bubblewrap (apt install bubblewrap)."
PROBE_TIMEOUT = 10.0
HOME = "/workspace"
TEMPORARY = ".tmp"
"""Directory of a workspace that processes see as `/tmp`."""
PATH = f"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{HOME}/.packages/bin"

_MAX_DETAIL = 300
# `--unshare-user` and a user of its own: without them a server that runs as root would be root
# inside, too.
_ISOLATION = (
    *("--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"),
    *("--die-with-parent", "--new-session", "--clearenv"),
)
_LINKED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_SETTINGS = (
    *("alternatives", "ca-certificates", "ca-certificates.conf", "ld.so.cache", "ld.so.conf"),
    *("ld.so.conf.d", "localtime", "mime.types", "pki/ca-trust", "pki/tls/certs", "ssl/certs"),
)
_NETWORK_SETTINGS = ("gai.conf", "hosts", "nsswitch.conf", "resolv.conf", "services")


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What one sandbox has beside programs.

    `files` are {path: descriptor its content is read from}; `skills` are {name: directory}.
    """

    workspace: str
    allow_network: bool
    variables: Mapping[str, str]
    files: Mapping[str, int]
    skills: Mapping[str, str]


def cannot_start(detail: str) -> str:
    """Return the refusal of a sandbox that is installed but does not work."""
    hint = "Allow unprivileged user namespaces for the server."
    return f"Sandbox cannot start: {detail.rstrip('.')}. {hint}"


def options(room: Room, host: Path = Path("/")) -> list[str]:
    """Return bubblewrap's options for a sandbox. Looks at the host's directories.

    `.tmp` is mounted inside the workspace, too: nothing in a sandbox can put a link in its place,
    which the next one would follow out of the workspace.
    """
    temporary = f"{room.workspace}/{TEMPORARY}"
    found = [*_ISOLATION, *_root(host)]
    if room.allow_network:
        found.append("--share-net")
        for name in _NETWORK_SETTINGS:
            found += ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")
    found += ("--bind", room.workspace, HOME, "--bind", temporary, f"{HOME}/{TEMPORARY}")
    # Shared memory on the disk of the workspace: the default would be the server's memory.
    found += ("--bind", temporary, "/tmp", "--bind", temporary, "/dev/shm")
    for name, directory in room.skills.items():
        found += ("--ro-bind", directory, f"/.skill_providers/{name}")
    for path, descriptor in room.files.items():
        found += ("--file", str(descriptor), path)
    for name, value in {**_environment(), **room.variables}.items():
        found += ("--setenv", name, value)
    # What is written elsewhere would fill the server's memory; and in /proc lie the settings of
    # the host's kernel, which belong to root: the user of a server that runs as root, here too.
    for place in ("/proc", "/dev", "/"):
        found += ("--remount-ro", place)
    return [*found, "--chdir", HOME]


async def find_problem(program: str | None, environ: Mapping[str, str]) -> str:
    """Run a process in a sandbox; return the refusal that nodes would get, empty if it works.

    Args:
        program: path of `bwrap`; None: not installed.
        environ: of the probe.
    """
    if program is None:
        return NOT_INSTALLED
    try:
        with trio.fail_after(PROBE_TIMEOUT):
            ended = await trio.run_process(
                [
                    *(program, *_ISOLATION, *_root(Path("/")), "--setenv", "PATH", PATH, "--"),
                    *limited(PROBE_TIMEOUT, ["true"]),
                ],
                env=dict(environ),
                check=False,
                stdout=subprocess.DEVNULL,
                capture_stderr=True,
                deliver_cancel=kill,
            )
    except trio.TooSlowError:
        return cannot_start(f"no answer within {PROBE_TIMEOUT:.0f} s")
    except OSError as error:
        return cannot_start(error.strerror or type(error).__name__)
    return "" if ended.returncode == 0 else failed_start(ended.stderr, ended.returncode)


def failed_start(said: bytes, exit_code: int) -> str:
    """Return the refusal of a sandbox whose start failed, from what bubblewrap said."""
    lines = said.decode(errors="replace").strip().splitlines()
    return cannot_start(lines[-1][:_MAX_DETAIL] if lines else f"exit code {exit_code}")


async def kill(process: trio.Process) -> None:
    """End a probe that is not waited for any more: it has nothing to tidy up."""
    process.kill()
    await trio.lowlevel.checkpoint()


def _root(host: Path) -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for name in _LINKED:
        place = host / name
        if place.is_symlink():
            yield from ("--symlink", str(place.readlink()), f"/{name}")
        elif place.is_dir():
            yield from ("--ro-bind", f"/{name}", f"/{name}")
    for name in _SETTINGS:
        yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")
    yield from ("--proc", "/proc", "--dev", "/dev")


def _environment() -> dict[str, str]:
    packages = f"{HOME}/.packages"
    return {
        "HOME": HOME,
        "PATH": PATH,
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "PIP_TARGET": packages,
        "PYTHONPATH": packages,
    }
