"""What a person can do next, for the errors where that is known."""

from collections.abc import Mapping
from pathlib import Path

DEMO_MARKER = ".pipelit-demo"
"""A file of this name marks a data directory that `pipelit demo` made."""

LOG_IN = (
    "Log in with `pipelit login`, or set PIPELIT_API_KEY.\n"
    "PIPELIT_API_KEY wins over the login that is remembered in the directory PIPELIT_DIR."
)

_LISTS = ("workflows", "executions", "schedules")


def start_hint(environ: Mapping[str, str]) -> str:
    """Say how to start the server that does not answer."""
    directory = environ.get("PIPELIT_DIR", "")
    if directory and (Path(directory).expanduser() / DEMO_MARKER).exists():
        again = f"`make run`, or `pipelit demo --serve --data-dir {directory}`"
        if directory.rstrip("/") != ".demo":
            again = f"`pipelit demo --serve --data-dir {directory}`"
        return f"{directory} belongs to the demo: start its server again with {again}."
    return "Is the server running? Start it with `pipelit serve`, or name another with --url."


def refusal_hint(status: int, detail: str, path: str, retry_after: str | None) -> str | None:
    """Say what to do after a refusal; None where nothing is known.

    Args:
        status: of the answer.
        detail: the server's words.
        path: of the request.
        retry_after: the answer's header of this name.
    """
    if "/auth/" in path:
        done = status == 409 and path.endswith("/setup/")
        return "Log in with `pipelit login`." if done else None
    if status == 404:
        return _missing_hint(detail, path)
    return {
        401: LOG_IN,
        429: f"Try again in {retry_after or 'some'} seconds.",
        503: "Try again in a moment.",
    }.get(status)


def _missing_hint(detail: str, path: str) -> str | None:
    if path.endswith("/chat/") and "trigger" in detail:
        return "It takes no messages; start it with `pipelit run`."
    if path.endswith("/execute/") and "trigger" in detail:
        return "It has no manual trigger; send it a message with `pipelit chat`."
    resource = path.removeprefix("/api/v1/").partition("/")[0]
    if resource not in _LISTS:
        return None
    command = "workflow" if resource == "workflows" else resource
    return f"See what there is: `pipelit {command} list`"
