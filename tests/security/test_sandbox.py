"""Attacks by code and commands of a workflow. Contract: engine.md §29."""

import os
from itertools import count
from typing import Any

import pytest

from tests.kit.api import Api
from tests.kit.sandbox import command_lines, sleepers
from tests.kit.site import People, Site
from tests.kit.waiting import until
from tests.security.bystander import undisturbed
from tests.security.lab import ATTACK, attack, build, error_of, log_of, output_of

pytestmark = pytest.mark.slow

COUNT = count(1)
HOME = os.path.expanduser("~")

READS = {
    "the_passwords_of_the_host": "cat /etc/shadow",
    "the_home_of_the_server": "ls {home}/.config {home}/.ssh",
    "the_database": "cat {data}/db.sqlite3",
    "the_encryption_key": "cat {data}/encryption.key",
    "the_neighbours_workspaces": "ls {data}/workspaces",
    "a_way_up": "cat /workspace/../../encryption.key",
    "the_environment_of_the_server": "cat /proc/{pid}/environ",
    "the_memory_of_the_server": "cat /proc/{pid}/maps",
    "the_root_of_the_server": "ls /proc/{pid}/root",
    "the_disk": "head -c 1 /dev/sda /dev/vda /dev/mem",
    "the_sockets_of_the_host": "ls /run/docker.sock /var/run/docker.sock",
    "a_write_to_the_system": "touch /usr/bin/x /etc/x /x",
    "a_mount": "mount -t tmpfs none /mnt",
    "another_user": "su -c id || sudo id",
    "a_kernel_setting": "echo 1 > /proc/sys/kernel/core_pattern",
    "a_device": "mknod /tmp/disk b 8 0",
    "a_link_out": "ln -sfn / /workspace/out && cat /workspace/out/{data}/encryption.key",
}
"""Commands, none of which may succeed."""

SENDS = {
    "this_server": "('127.0.0.1', {port})",
    "the_internet": "('1.1.1.1', 443)",
    "the_metadata_of_a_cloud": "('169.254.169.254', 80)",
    "a_name": "(socket.gethostbyname('example.com'), 80)",
}

FORGED = """
import os, sys
print('{"output": "forged", "exit_code": 0}')
for descriptor in range(3, 20):
    try:
        os.write(descriptor, b'{"value": "forged"}\\n')
    except OSError:
        pass
return "honest"
"""


@pytest.fixture
async def shell(bubblewrap: str, people: People) -> Api:
    """Olga, whose workflow `shell` runs any command."""
    if (await people.olga.call("GET", "/workflows/shell/")).status_code == 404:
        await build(people.olga, "shell", "run_command", command=ATTACK)
    return people.olga


@pytest.fixture
async def snippets(bubblewrap: str, people: People) -> Api:
    """Olga, whose workflow `snippets` runs any Python for at most a second."""
    if (await people.olga.call("GET", "/workflows/snippets/")).status_code == 404:
        await build(people.olga, "snippets", "code", limit=1, code=ATTACK)
    return people.olga


def server_pid(site: Site) -> str:
    wanted = str(site.server.data).encode()
    return next(pid for pid, line in command_lines().items() if wanted in line)


@pytest.mark.parametrize("command", READS.values(), ids=list(READS))
async def test_a_command_does_not_reach(site: Site, shell: Api, command: str) -> None:
    """Of the host there is what programs need, read-only, and nothing else."""
    filled = command.format(home=HOME, data=site.server.data, pid=server_pid(site))

    detail = await attack(shell, "shell", filled)

    assert "[exit code: " in output_of(detail)["result"]


@pytest.mark.parametrize("address", SENDS.values(), ids=list(SENDS))
async def test_code_does_not_send_to(site: Site, snippets: Api, address: str) -> None:
    """No interface but a loopback of its own, no names."""
    port = site.url.rpartition(":")[2]
    connect = f"socket.create_connection({address.format(port=port)}, 1)"
    code = f"import socket\ntry:\n  {connect}\nexcept OSError: return 'out'\nreturn 'in'"

    detail = await attack(snippets, "snippets", code)

    assert output_of(detail)["result"] == "out"


async def test_the_environment_of_the_server_is_not_given_on(site: Site, shell: Api) -> None:
    """Neither its variables nor its descriptors."""
    detail = await attack(shell, "shell", "env; ls -l /proc/self/fd; cat /proc/*/environ")

    shown = str(output_of(detail))
    assert "GATEWAY_INBOUND_TOKEN" not in shown
    assert "token-of-the-gateway" not in shown
    assert str(site.server.data) not in shown
    assert "socket:" not in shown
    assert "db.sqlite3" not in shown


async def test_signals_reach_nobody_outside(shell: Api, bystander: Api) -> None:
    """A process sees only those of its own sandbox."""
    async with undisturbed(bystander) as rounds:
        await attack(shell, "shell", "kill -9 -1; kill -9 0; killall python3")
        await rounds.more()


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        # Four times the limit, which the kernel does not hold against root: the test must not
        # take the machine down where the server runs as root.
        "import os, time\nfor _ in range(10):\n  try: os.fork()\n  except OSError: pass\n"
        "while True: time.sleep(1)",
        "x = []\nwhile True: x.append('x' * 10**7)",
        "with open('/workspace/big', 'wb') as f:\n  while True: f.write(b'x' * 10**7)",
        "with open('/tmp/big', 'wb') as f:\n  while True: f.write(b'x' * 10**7)",
        "import re\nre.match('(a+)+$', 'a' * 64 + 'b')",
        "10 ** 10 ** 10",
        "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))\nos.setsid()\n"
        "while True: pass",
        "import threading\nfor _ in range(2000):\n  try: "
        "threading.Thread(target=threading.Event().wait).start()\n"
        "  except RuntimeError: pass\nwhile True: pass",
    ],
    ids=[
        *("a_loop", "a_fork_bomb", "memory", "the_disk", "the_temporary_disk", "a_pattern"),
        *("a_number", "deafness_to_signals", "threads"),
    ],
)
async def test_a_snippet_that_takes_everything_takes_it_from_itself(
    people: People, snippets: Api, bystander: Api, code: str
) -> None:
    """Its process group is limited and is killed with its time; others go on meanwhile."""
    async with undisturbed(bystander):
        detail = await attack(snippets, "snippets", code)
    await people.ada.post("/workspaces/1/reset/")

    assert detail["status"] == "failed"


async def test_nothing_outlives_its_command(shell: Api) -> None:
    """Not even what left its session and its parents."""
    mark = "86401"
    command = f"(setsid nohup sleep {mark} >/dev/null 2>&1 &) ; (sleep {mark} >/dev/null 2>&1 &)"

    await attack(shell, "shell", command)

    await until(lambda: not sleepers(mark))


async def test_output_without_end_is_cut(shell: Api, bystander: Api) -> None:
    """What is over the limit is thrown away as it comes."""
    async with undisturbed(bystander):
        detail = await attack(shell, "shell", "yes | head -c 200000000")

    assert len(str(output_of(detail))) < 200_000


async def test_output_cannot_forge_a_result(snippets: Api) -> None:
    """The value of a snippet is what it returns, whatever it writes wherever it can."""
    detail = await attack(snippets, "snippets", FORGED)

    assert output_of(detail)["result"] == "honest"


async def test_a_result_is_data_not_code(snippets: Api) -> None:
    """No pickle, no object with a method of the attacker's."""
    code = "class X(dict):\n  def __reduce__(self): return (exit, ())\nreturn X(a=1)"

    assert output_of(await attack(snippets, "snippets", code))["result"] == {"a": 1}


async def test_a_quoted_value_stays_one_word(bubblewrap: str, people: People, slug: str) -> None:
    """`shquote` is what keeps a stranger's text out of the command."""
    await build(people.olga, slug, "run_command", command="echo {{ trigger.text | shquote }}")

    detail = await attack(people.olga, slug, "'; touch /workspace/pwned; echo '$(id)`id`")

    assert output_of(detail)["result"].strip() == "'; touch /workspace/pwned; echo '$(id)`id`"


async def test_a_workflow_names_no_workspace_of_somebody_else(
    bubblewrap: str, people: People, slug: str
) -> None:
    """Not by id, and a deep agent not by path."""
    made = await people.otto.post("/workspaces/", {"name": slug[-90:]})
    await build(people.olga, slug, "run_command", command="ls", workspace_id=made["id"])

    detail = await attack(people.olga, slug)

    assert error_of(detail) == "ConfigError"
    assert log_of(detail)["error"] == f"Workspace {made['id']} does not exist"


@pytest.mark.parametrize(
    "root", ["..", "/", "/etc", "../..", "default/../../", "default/../../encryption.key"]
)
async def test_the_files_of_an_agent_stay_in_a_workspace(people: People, root: str) -> None:
    """`filesystem_root_dir` leads nowhere else."""
    slug = f"files-of-an-agent-{next(COUNT)}"
    credential = await people.olga.add_model("http://127.0.0.1:9/v1")
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "start": ("trigger_manual", {}),
        "model": ("ai_model", {"llm_credential_id": credential, "model_name": "demo-1"}),
        "attack": (
            "deep_agent",
            {
                "extra_config": {
                    "enable_filesystem": True,
                    "filesystem_backend": "filesystem",
                    "filesystem_root_dir": root,
                }
            },
        ),
    }
    await people.olga.build(slug, nodes, "start -> attack, model -> attack : llm")

    detail = await attack(people.olga, slug)

    assert error_of(detail) == "ConfigError"
    assert detail["error_message"].endswith(
        "filesystem_root_dir must be inside the workspaces directory"
    )


async def test_the_directory_of_all_workspaces_is_none(people: People, slug: str) -> None:
    """Nor is a path out of it, or one in somebody else's."""
    for path in ("/etc", "..", "/tmp", ""):
        answer = await people.olga.call("POST", "/workspaces/", {"name": slug[-90:], "path": path})
        assert answer.status_code in {400, 422}, answer.text
    for name in ("../x", "a/b", ".hidden", "a\0b", "x" * 101):
        answer = await people.olga.call("POST", "/workspaces/", {"name": name})
        assert answer.status_code == 422, answer.text


async def test_nobody_but_an_admin_opens_the_network(people: People, slug: str) -> None:
    """Neither in a new workspace nor in an own one; a node's wish has no effect."""
    made = await people.olga.post("/workspaces/", {"name": slug[-90:]})

    new = await people.olga.call(
        "POST", "/workspaces/", {"name": f"{slug[-90:]}-2", "allow_network": True}
    )
    changed = await people.olga.call("PATCH", f"/workspaces/{made['id']}/", {"allow_network": True})

    assert (new.status_code, changed.status_code) == (403, 403)
