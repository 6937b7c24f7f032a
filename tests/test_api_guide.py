"""The API guide works as it stands, and leaves no section of the contract out."""

import os
import re
import shutil
from pathlib import Path

import pytest
import trio

from tests.kit.api import calling
from tests.kit.server_process import ServerProcess, free_port

DOCS = Path(__file__).parents[1] / "docs"
GUIDE = (DOCS / "api.md").read_text()
HOW_TO = (DOCS / "how-to.md").read_text()
REFERENCE = DOCS / "reference"
NO_SECTIONS_OF_THE_API = {"README", "beyond", "engine", "first-run", "operators"}


@pytest.mark.slow
async def test_every_command_of_the_guide_works(tmp_path: Path) -> None:
    """In one shell that stops at the first failure; and the how-to's workflow is valid."""
    for program in ("bash", "curl", "jq"):
        if shutil.which(program) is None:
            pytest.skip(f"missing program: {program}")
    blocks = re.findall(r"^```bash\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    script = "\n".join(["set -euo pipefail", *blocks])
    server = ServerProcess(tmp_path, free_port())
    async with server.run():
        async with calling(server.url) as api:
            await api.setup()
            yaml = re.findall(r"^```yaml\n(.*?)^```", HOW_TO, re.MULTILINE | re.DOTALL)
            checked = [
                (await api.call("POST", "/workflows/validate-dsl/", {"yaml_str": text})).json()
                for text in yaml
            ]
        with trio.fail_after(60):
            done = await trio.run_process(
                ["bash", "-c", script],
                env={**os.environ, "PIPELIT_URL": server.url, "PIPELIT_KEY": api.key},
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )

    assert [one["valid"] for one in checked] == [True]
    assert done.returncode == 0, (done.stdout[-2000:] + done.stderr).decode()
    assert b"You said: run" in done.stdout
    assert b"execution_completed" in done.stdout
    assert b"sk-secret" not in done.stdout


def test_the_guide_has_every_section_of_the_contract() -> None:
    """Each page of the reference that is about the API is linked from a heading."""
    headings = "\n".join(re.findall(r"^## .*", GUIDE, re.MULTILINE))
    linked = set(re.findall(r"\(reference/([\w-]+)\.md\)", headings))

    assert linked == {page.stem for page in REFERENCE.glob("*.md")} - NO_SECTIONS_OF_THE_API
