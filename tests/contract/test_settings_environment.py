"""beyond.md §9 over a real socket: what the machine offers."""

import pytest
import trio
from sqlalchemy import update

from pipelit.store import schema
from pipelit.store.queries.workspaces import insert_workspace
from tests.kit.canvas import START
from tests.kit.control import Control, control, settings
from tests.kit.store import migrated, store, store_url

__all__ = ["control", "migrated", "settings", "store", "store_url"]

RECHECK = "/settings/recheck-environment/"
NO_SANDBOX = "No sandbox available. Install bubblewrap (apt install bubblewrap)."


async def test_a_capable_machine_is_shown_field_by_field(control: Control) -> None:
    """Every probed program is listed; what did not tell its version has none."""
    environment = await control.environment()

    tools = environment["capabilities"].pop("shell_tools")
    assert environment == {
        "os": "Linux",
        "arch": "x86_64",
        "container": "podman",
        "bwrap_available": True,
        "rootfs_ready": True,
        "sandbox_mode": "bwrap",
        "capabilities": {
            "runtimes": {
                name: {
                    "available": True,
                    "version": "3.11.7" if name == "python3" else None,
                    "path": f"/usr/bin/{name}",
                }
                for name in ("python3", "pip3", "node", "npm")
            },
            "network": {"dns": False, "http": False},
        },
        "tier1_met": True,
        "tier2_warnings": [],
        "gate": {"passed": True, "blocked_reason": None},
    }
    first = "bash cat ls cp mv mkdir rm chmod grep sed head tail wc"
    second = "find sort awk xargs tee curl wget git tar unzip jq"
    assert tools == {
        **{name: {"available": True, "tier": 1} for name in first.split()},
        **{name: {"available": True, "tier": 2} for name in second.split()},
    }


@pytest.mark.parametrize(
    ("problem", "missing", "reason"),
    [
        (NO_SANDBOX, (), NO_SANDBOX),
        (NO_SANDBOX, ("bash",), NO_SANDBOX),
        ("", ("wc", "sed"), "Tool 'sed' is not available"),
    ],
)
async def test_the_gate_names_the_first_missing_thing(
    control: Control, problem: str, missing: tuple[str, ...], reason: str
) -> None:
    """Bubblewrap before tools, tools in the order of the contract."""
    control.machine.problem = problem
    for name in missing:
        del control.machine.programs[name]

    environment = await control.environment()

    assert environment["gate"] == {"passed": False, "blocked_reason": reason}
    assert environment["tier1_met"] is not bool(missing)
    assert environment["bwrap_available"] is not bool(problem)
    assert environment["sandbox_mode"] == ("none" if problem else "bwrap")
    for name in missing:
        assert environment["capabilities"]["shell_tools"][name]["available"] is False


async def test_missing_comforts_are_warnings(control: Control) -> None:
    """Tools of tier 2 and runtimes block nothing."""
    for name in ("jq", "find", "node"):
        del control.machine.programs[name]

    environment = await control.environment()

    assert environment["gate"]["passed"] is True
    assert environment["tier2_warnings"] == [
        "Tool 'find' is not available",
        "Tool 'jq' is not available",
    ]
    node = environment["capabilities"]["runtimes"]["node"]
    assert node == {"available": False, "version": None, "path": None}


async def test_the_network_is_that_of_the_default_workspace(control: Control) -> None:
    """Nothing is sent to find out, and a change shows at once."""
    await control.store.write(
        lambda conn: insert_workspace(conn, owner_id=1, name="default", path="/x", created_at=START)
    )
    before = await control.environment()
    opened = update(schema.workspaces).values(allow_network=True)
    await control.store.write(lambda conn: conn.execute(opened).rowcount)

    after = await control.environment()

    assert before["capabilities"]["network"] == {"dns": False, "http": False}
    assert after["capabilities"]["network"] == {"dns": True, "http": True}


async def test_the_machine_is_probed_once(control: Control) -> None:
    """However many ask at once; a recheck looks again."""
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(control.get, "/settings/")
    assert control.machine.looks == 1
    control.machine.problem = NO_SANDBOX

    assert (await control.environment())["bwrap_available"] is True
    rechecked = await control.call("POST", RECHECK, key="ada-key")

    assert rechecked.status_code == 200
    assert set(rechecked.json()) == {"environment"}
    assert rechecked.json()["environment"] == await control.environment()
    assert rechecked.json()["environment"]["bwrap_available"] is False
    assert control.machine.looks == 2
