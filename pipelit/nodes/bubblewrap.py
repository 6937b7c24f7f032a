"""Whether bubblewrap can make a sandbox here. Contract: engine.md §29.1."""

import subprocess
from collections.abc import Mapping

import trio

NOT_INSTALLED = "No sandbox available. Install bubblewrap (apt install bubblewrap)."
PROBE_TIMEOUT = 10.0
_MAX_DETAIL = 300

_PROBE = (
    *("--unshare-all", "--die-with-parent", "--new-session", "--clearenv"),
    *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
    *("--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin", "--", "true"),
)


def cannot_start(detail: str) -> str:
    """Return the refusal of a sandbox that is installed but does not work."""
    hint = "Allow unprivileged user namespaces for the server."
    return f"Sandbox cannot start: {detail.rstrip('.')}. {hint}"


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
                [program, *_PROBE],
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
    if ended.returncode == 0:
        return ""
    said = ended.stderr.decode(errors="replace").strip().splitlines()
    return cannot_start(said[-1][:_MAX_DETAIL] if said else f"exit code {ended.returncode}")


async def kill(process: trio.Process) -> None:
    """End a probe that is not waited for any more: it has nothing to tidy up."""
    process.kill()
    await trio.lowlevel.checkpoint()
