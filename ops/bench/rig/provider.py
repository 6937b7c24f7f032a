"""The fixed-time model provider as a child process, and an agent that asks it."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from rig.http import Connection
from rig.server import build


@asynccontextmanager
async def provider(*, delay: float, pieces: int = 1, pause: float = 0.0) -> AsyncIterator[str]:
    """Run a provider for the length of the block; yields its base URL."""
    options = {"delay": delay, "pieces": pieces, "pause": pause}
    process = await trio.lowlevel.open_process(
        [
            *(sys.executable, str(Path(__file__).with_name("model.py"))),
            *(part for name, value in options.items() for part in (f"--{name}", str(value))),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        port = int(await process.stdout.receive_some())
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()


async def build_agent(connection: Connection, slug: str, url: str) -> None:
    """Create a workflow whose agent asks the provider at *url*."""
    detail = {"provider_type": "openai_compatible", "api_key": "sk-bench-0000", "base_url": url}
    credential = await connection.post(
        "/credentials/", {"name": slug, "credential_type": "llm", "detail": detail}
    )
    model = {"llm_credential_id": credential["id"], "model_name": "bench-1"}
    await build(
        connection,
        slug,
        {
            "start": ("trigger_manual", {}),
            "model": ("ai_model", model),
            "think": ("agent", {"system_prompt": "Think."}),
        },
        "start -> think, model -> think : llm",
    )
