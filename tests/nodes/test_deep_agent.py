"""Planning, files and subagents. Contract: node-types.md §5.2."""

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from pipelit.engine.messages import ToolCall
from pipelit.engine.outcome import Outcome
from pipelit.llm.types import ProviderError
from pipelit.nodes.agent_files import Files
from pipelit.nodes.base import NodeError
from pipelit.nodes.deep_agent import DeepParts, Place, deep_agent_component
from pipelit.nodes.kept_files import StateFiles
from pipelit.nodes.sandbox import Sandbox
from tests.nodes.agents import Port, Script, calls, run_agent, says

REVIEWER = {"name": "reviewer", "description": "Reviews.", "system_prompt": "Be strict."}


class Regexes:
    """Searches at once: the patterns of these tests are harmless."""

    async def find_all(self, pattern: str, subject: str) -> list[Any]:
        await trio.lowlevel.checkpoint()
        return re.findall(pattern, subject)


def parts(root: Path | None = None, store: Callable[[int, str], Files] | None = None) -> DeepParts:
    async def find_place(workflow_id: int, workspace_id: int | None, root_dir: str) -> Place:
        await trio.lowlevel.checkpoint()
        assert root is not None
        return Place(workspace_id, str(root), tuple(filter(None, root_dir.split("/"))))

    async def find_workspace(workflow_id: int, workspace_id: int | None) -> Any:
        raise AssertionError("no process is started here")

    def nothing(workflow_id: int, user_key: str) -> Files:
        raise AssertionError("nothing is stored here")

    return DeepParts(
        search=Regexes(),
        sandbox=Sandbox(find_workspace, search_path=""),
        find_place=find_place,
        open_store=store or nothing,
    )


async def deep(
    script: Script, port: Port | None = None, *, using: DeepParts | None = None, **more: Any
) -> Outcome:
    """Run a deep agent."""
    component = partial(deep_agent_component, deep=using or parts())
    return await run_agent(script, port, component=component, **more)


async def ask(
    *wanted: tuple[str, dict[str, Any]], using: DeepParts | None = None, **extra: Any
) -> list[str]:
    """Let a deep agent call its tools one after another; return their results."""
    made = [calls(ToolCall(f"c{n}", name, given)) for n, (name, given) in enumerate(wanted)]
    script = Script(*made, says("done"))
    await deep(script, using=using, **{"enable_filesystem": True, **extra})
    return [text for role, text in script.texts() if role == "tool"]


def offered(script: Script, number: int = 0) -> list[str]:
    return [tool.name for tool in script.requests[number].tools]


FILES = ["ls", "read_file", "write_file", "edit_file", "glob", "grep"]


class TestWhatIsOffered:
    @pytest.mark.parametrize(
        ("extra", "names"),
        [
            ({}, []),
            ({"enable_todos": True}, ["write_todos"]),
            ({"enable_filesystem": True}, FILES),
            ({"subagents": [REVIEWER]}, ["task"]),
            ({"workspace_id": 3}, [*FILES, "execute"]),
            ({"enable_filesystem": True, "filesystem_backend": "filesystem"}, [*FILES, "execute"]),
            ({"workspace_id": 3, "filesystem_backend": "state"}, FILES),
        ],
    )
    async def test_tools_are_there_as_the_config_switches_them_on(
        self, tmp_path: Path, extra: dict[str, Any], names: list[str]
    ) -> None:
        """`execute` only where there is a workspace."""
        script = Script(says("x"))

        await deep(script, using=parts(tmp_path), **extra)

        assert offered(script) == names


class TestTodos:
    async def test_the_last_list_is_kept_and_logged(self) -> None:
        """Each call replaces it."""
        first = [{"content": "a", "status": "pending"}]
        second = [{"content": "a", "status": "completed"}, {"content": "b", "status": "pending"}]
        script = Script(
            calls(ToolCall("c1", "write_todos", {"todos": first})),
            calls(ToolCall("c2", "write_todos", {"todos": second})),
            says("done"),
        )
        port = Port()

        outcome = await deep(script, port, enable_todos=True)

        results = [text for role, text in script.texts() if role == "tool"]
        assert results[0] == 'Updated todo list: [{"content":"a","status":"pending"}]'
        assert list(outcome.report.todos) == second
        assert [event.data["node_id"] for _, events in port.saves for event in events] == [
            "_builtin_write_todos"
        ] * 4
        assert port.saves[0][1][0].data["component_type"] == "agent"

    async def test_a_list_of_anything_else_is_refused(self) -> None:
        """The model reads why."""
        (result,) = await ask(
            ("write_todos", {"todos": [{"content": "a", "status": "soon"}]}), enable_todos=True
        )

        assert result.startswith("Error: invalid arguments for tool 'write_todos': ")


def state_files() -> Files:
    kept: dict[str, str] = {}

    def keep(changed: dict[str, str]) -> None:
        kept.clear()
        kept.update(changed)

    return StateFiles(lambda: dict(kept), keep)


class TestFiles:
    """The same on every backend."""

    @pytest.fixture(params=["state", "filesystem", "store"])
    def backend(self, request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
        files = state_files()
        return {
            "filesystem_backend": request.param,
            "using": parts(tmp_path, store=lambda workflow_id, user_key: files),
        }

    async def test_what_is_written_can_be_read(self, backend: dict[str, Any]) -> None:
        """With numbered lines."""
        results = await ask(
            ("write_file", {"file_path": "/notes/a.md", "content": "one\ntwo\nthrée"}),
            ("read_file", {"file_path": "/notes/a.md"}),
            ("read_file", {"file_path": "notes/a.md", "offset": 1, "limit": 1}),
            ("read_file", {"file_path": "/none"}),
            ("write_file", {"file_path": "/empty", "content": ""}),
            ("read_file", {"file_path": "/empty"}),
            **backend,
        )

        assert results == [
            "Wrote 14 bytes to /notes/a.md",
            "     1\tone\n     2\ttwo\n     3\tthrée",
            "     2\ttwo",
            "Error: file '/none' not found",
            "Wrote 0 bytes to /empty",
            "(file is empty)",
        ]

    async def test_texts_are_replaced(self, backend: dict[str, Any]) -> None:
        """Only where it is clear which one is meant."""
        edit = {"file_path": "/a", "old_string": "x", "new_string": "y"}
        results = await ask(
            ("write_file", {"file_path": "/a", "content": "x x"}),
            ("edit_file", edit),
            ("edit_file", {**edit, "replace_all": True}),
            ("edit_file", edit),
            ("edit_file", {**edit, "file_path": "/b"}),
            ("edit_file", {**edit, "old_string": "y y", "new_string": "z"}),
            ("read_file", {"file_path": "/a"}),
            **backend,
        )

        assert results[1:] == [
            "Error: text occurs 2 times in '/a'; pass replace_all=true or give more context",
            "Replaced 2 occurrence(s) in /a",
            "Error: text not found in '/a'",
            "Error: file '/b' not found",
            "Replaced 1 occurrence(s) in /a",
            "     1\tz",
        ]

    async def test_files_are_found_by_name_and_by_text(self, backend: dict[str, Any]) -> None:
        """Directories end with a slash."""
        results = await ask(
            ("ls", {}),
            ("write_file", {"file_path": "/a.md", "content": "apple\nbanana"}),
            ("write_file", {"file_path": "/d/b.md", "content": "an apple"}),
            ("write_file", {"file_path": "/d/c.txt", "content": "apple"}),
            ("ls", {}),
            ("ls", {"path": "/d"}),
            ("glob", {"pattern": "*.md"}),
            ("glob", {"pattern": "**/*.md"}),
            ("glob", {"pattern": "*.py"}),
            ("grep", {"pattern": "^appl(e)$"}),
            ("grep", {"pattern": "apple", "path": "/d", "glob": "*.md"}),
            ("grep", {"pattern": "pear"}),
            **backend,
        )

        assert results[0] == "(empty)"
        assert results[4:] == [
            "a.md\nd/",
            "b.md\nc.txt",
            "/a.md",
            "/a.md\n/d/b.md",
            "No files matched",
            "/a.md:1:apple\n/d/c.txt:1:apple",
            "/d/b.md:1:an apple",
            "No matches",
        ]

    @pytest.mark.parametrize("path", ["../x", "/a/../../x"])
    async def test_nothing_leaves_the_root(self, backend: dict[str, Any], path: str) -> None:
        """Whatever the tool."""
        results = await ask(
            ("read_file", {"file_path": path}),
            ("write_file", {"file_path": path, "content": "x"}),
            ("ls", {"path": path}),
            **backend,
        )

        assert results == ["Error: path escapes the workspace"] * 3


class TestFilesOnDisk:
    async def test_no_link_is_followed(self, tmp_path: Path) -> None:
        """Neither of a file nor of a directory."""
        outside, root = tmp_path / "outside", tmp_path / "root"
        outside.mkdir()
        root.mkdir()
        (outside / "secret").write_text("s3cret")
        (root / "link").symlink_to(outside / "secret")
        (root / "dir").symlink_to(outside)

        results = await ask(
            ("read_file", {"file_path": "/link"}),
            ("read_file", {"file_path": "/dir/secret"}),
            ("write_file", {"file_path": "/dir/new", "content": "x"}),
            ("grep", {"pattern": "s3cret"}),
            using=parts(root),
            filesystem_backend="filesystem",
        )

        assert results == ["Error: path escapes the workspace"] * 3 + ["No matches"]
        assert not (outside / "new").exists()

    async def test_what_is_no_text_file_is_refused(self, tmp_path: Path) -> None:
        """A pipe holds up nobody."""
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "binary").write_bytes(b"\xff\xfe")

        results = await ask(
            ("read_file", {"file_path": "/pipe"}),
            ("read_file", {"file_path": "/binary"}),
            using=parts(tmp_path),
            filesystem_backend="filesystem",
        )

        assert results == ["Error: 'pipe' is no file", "Error: file '/binary' is no text"]

    async def test_the_root_may_be_a_directory_of_the_workspace(self, tmp_path: Path) -> None:
        """It is made when something is written."""
        await ask(
            ("write_file", {"file_path": "/a", "content": "x"}),
            using=parts(tmp_path),
            filesystem_backend="filesystem",
            filesystem_root_dir="deep/er",
        )

        assert (tmp_path / "deep" / "er" / "a").read_text() == "x"


class TestSubagents:
    async def test_a_subagent_answers_with_its_final_text(self) -> None:
        """It knows its task and its own system prompt; it has all tools but `task`."""
        task = {"description": "Review /draft.md", "subagent_type": "reviewer"}
        script = Script(calls(ToolCall("c1", "task", task)), says("Too long."), says("done"))
        port = Port()

        outcome = await deep(
            script,
            port,
            enable_filesystem=True,
            subagents=[REVIEWER],
            system_prompt="Write.",
        )

        assert script.texts(1) == [("system", "Be strict."), ("user", "Review /draft.md")]
        assert offered(script, 1) == FILES
        assert script.texts(2)[-1] == ("tool", "Too long.")
        assert outcome.report.usage is not None
        assert (outcome.report.usage.llm_calls, outcome.report.usage.total_tokens) == (3, 45)
        assert port.told() == ["task running", "task success"]
        assert port.deltas == [("done", 0)]

    async def test_it_may_have_a_model_of_its_own(self) -> None:
        """On the same credential."""
        task = {"description": "x", "subagent_type": "reviewer"}
        script = Script(calls(ToolCall("c1", "task", task)), says("a"), says("b"))

        await deep(script, subagents=[{**REVIEWER, "model": "gpt-4o-mini"}])

        assert [r.model for r in script.requests] == ["gpt-4o", "gpt-4o-mini", "gpt-4o"]

    async def test_its_tools_work_in_the_files_of_its_parent(self) -> None:
        """Its calls are announced like those of its parent."""
        task = {"description": "x", "subagent_type": "reviewer"}
        write = {"file_path": "/a", "content": "x"}
        script = Script(
            calls(ToolCall("c1", "task", task)),
            calls(ToolCall("c1", "write_file", write)),
            says("written"),
            calls(ToolCall("c2", "read_file", {"file_path": "/a"})),
            says("done"),
        )
        port = Port()

        await deep(script, port, enable_filesystem=True, subagents=[REVIEWER])

        assert script.texts()[-1] == ("tool", "     1\tx")
        assert port.told()[:4] == [
            "task running",
            "write_file running",
            "write_file success",
            "task success",
        ]

    async def test_an_unknown_one_is_told(self) -> None:
        """The model reads it."""
        (result,) = await ask(
            ("task", {"description": "x", "subagent_type": "ghost"}), subagents=[REVIEWER]
        )

        assert result == "Error: unknown subagent 'ghost'"

    async def test_entries_that_lack_something_are_ignored(self) -> None:
        """With a warning."""
        script = Script(says("x"))

        outcome = await deep(script, subagents=[{"name": "a", "description": "b"}, "x"])

        assert offered(script) == []
        assert [w["code"] for w in outcome.report.warnings] == ["subagent_ignored"] * 2

    async def test_one_that_never_answers_is_stopped(self) -> None:
        """Its limit is the parent's; the parent goes on."""
        task = {"description": "x", "subagent_type": "reviewer"}
        again = [calls(ToolCall(f"l{n}", "ls", {})) for n in range(2)]
        script = Script(calls(ToolCall("c1", "task", task)), *again, says("done"))

        await deep(script, enable_filesystem=True, subagents=[REVIEWER], max_iterations=2)

        assert script.texts()[-1] == (
            "tool",
            "Error: Agent stopped after 2 iterations without a final answer",
        )

    async def test_the_end_of_the_budget_ends_the_parent_too(self) -> None:
        """It is no failure of a tool."""
        task = {"description": "x", "subagent_type": "reviewer"}
        script = Script(calls(ToolCall("c1", "task", task)), says("never"))

        class Poor(Port):
            async def reserve(self, estimate: Any, on_alive: Any) -> str | None:
                if self.estimates:
                    raise NodeError("spent", code="BudgetExceededError", retryable=False)
                return await super().reserve(estimate, on_alive)

        with pytest.raises(NodeError, match=r"^spent$"):
            await deep(script, Poor(), subagents=[REVIEWER])


class TestRecovery:
    async def test_a_subagent_goes_on_in_the_middle_of_its_task(self) -> None:
        """Neither its calls nor its tools are repeated; files and todos are there."""
        task = {"description": "x", "subagent_type": "reviewer"}
        write = {"file_path": "/a", "content": "x"}
        first, extra = Port(), {"enable_filesystem": True, "subagents": [REVIEWER]}
        lost = ProviderError("lost", code="BadRequestError", retryable=False)
        begun = Script(
            calls(ToolCall("c1", "task", task)), calls(ToolCall("w", "write_file", write)), lost
        )
        await deep(Script(*begun.answers, says("x")), first, **extra)
        before_result = first.saves[2][0]
        script = Script(says("went on"), says("done"))

        outcome = await deep(script, Port(progress=before_result), **extra)

        assert [role for role, _ in script.texts(0)] == ["system", "user", "assistant", "tool"]
        assert script.texts(1)[-1] == ("tool", "went on")
        assert before_result["desk"]["files"] == {"/a": "x"}
        assert outcome.ports["output"] == "done"

    async def test_what_a_finished_subagent_did_is_not_kept(self) -> None:
        """Its result is."""
        task = {"description": "x", "subagent_type": "reviewer"}
        script = Script(calls(ToolCall("c1", "task", task)), says("a"), says("done"))
        port = Port()

        await deep(script, port, subagents=[REVIEWER])

        assert "subagents" not in port.last.get("desk", {})
