"""skill: which folders count, what the prompt says of them, what `read_skill` gives."""

from dataclasses import replace

import pytest

from pipelit.engine.messages import ToolCall
from pipelit.nodes.agent import AgentParts, agent_component
from pipelit.nodes.base import ToolError
from pipelit.nodes.skills import MAX_FILE_CHARS, SkillLibrary
from tests.nodes.agents import Script, calls, says
from tests.nodes.calls import node, tool_context
from tests.nodes.model_nodes import model_call, model_parts

NODE = node("skill")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "skills_of_the_platform"


def write(folder, name="pr-review", description="Review a pull request", body="Step 1"):
    folder.mkdir(parents=True, exist_ok=True)
    front = f"---\nname: {name}\ndescription: {description}\n---\n"
    (folder / "SKILL.md").write_text(f"{front}{body}", encoding="utf-8")
    return folder


async def shelf_of(*roots, path="", more=()):
    attached = [(NODE, {"extra_config": {"skill_path": p}}) for p in (path, *more)]
    return await SkillLibrary(roots).open(attached)


async def read(roots, path="", **arguments):
    library = SkillLibrary(roots)
    attached = [(NODE, {"extra_config": {"skill_path": path}})]
    (tool,) = library.tools(await library.open(attached), attached)
    return await tool.run({"file": "SKILL.md", **arguments}, tool_context())


async def test_the_prompt_names_every_skill_of_the_platform(root):
    """The empty path is the platform's directory; folders in order of their names."""
    write(root / "b")
    write(root / "a", name="commit", description="'Write:  a\n  message'")
    (root / "notes").mkdir()

    shelf = await shelf_of(root)

    assert shelf.prompt.splitlines()[1:] == [
        "- commit: Write: a message",
        "- pr-review: Review a pull request",
    ]
    assert shelf.warnings == ()


async def test_a_path_may_be_one_skill_a_folder_of_skills_or_a_provider(root, tmp_path):
    """`{path}/skills/*/SKILL.md` wins; further roots count by their absolute path."""
    write(root / "one")
    write(root / "kit" / "skills" / "x", name="x")
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere / "y", name="y")

    shelf = await shelf_of(root, elsewhere, path="one", more=("kit", str(elsewhere)))

    assert [skill.name for skill in shelf.skills] == ["pr-review", "x", "y"]


@pytest.mark.parametrize("path", ["..", "/etc", "../skills_of_the_platform_2", "a\0b"])
async def test_a_path_outside_the_roots_is_ignored_with_a_warning(root, path):
    """Dots and absolute paths do not lead out."""
    root.mkdir()

    shelf = await shelf_of(root, path=path)

    assert shelf.skills == ()
    assert [warning["code"] for warning in shelf.warnings] == ["skill_ignored"]


async def test_links_do_not_lead_out(root, tmp_path):
    """Neither a linked folder nor a linked file is read."""
    secret = write(tmp_path / "secret", name="secret")
    write(root / "good", name="good")
    (root / "linked").symlink_to(secret)
    (root / "good" / "key").symlink_to(secret / "SKILL.md")

    shelf = await shelf_of(root)

    assert [skill.name for skill in shelf.skills] == ["good"]
    assert len(shelf.warnings) == 1
    with pytest.raises(ToolError, match="file 'key' not found in skill 'good'"):
        await read((root,), name="good", file="key")


@pytest.mark.parametrize("text", ["", "no front matter", "---\n- a\n---\n", "---\n{\n---\n"])
async def test_an_unreadable_skill_is_skipped_with_a_warning(root, text):
    """The others are offered all the same."""
    write(root / "good")
    write(root / "bad")
    (root / "bad" / "SKILL.md").write_text(text)

    shelf = await shelf_of(root)

    assert [skill.name for skill in shelf.skills] == ["pr-review"]
    assert len(shelf.warnings) == 1


async def test_the_first_of_a_name_counts(root):
    """The second is warned of."""
    write(root / "a", description="first")
    write(root / "b", description="second")

    shelf = await shelf_of(root)

    assert [skill.description for skill in shelf.skills] == ["first"]
    assert len(shelf.warnings) == 1


async def test_read_skill_gives_files_of_the_folder(root):
    """`SKILL.md` unless another is named; long ones are cut."""
    folder = write(root / "a", body="x" * 2 * MAX_FILE_CHARS)
    (folder / "steps").mkdir()
    (folder / "steps" / "one.md").write_text("Do it.")

    manifest = await read((root,), name="pr-review")

    assert len(manifest) == MAX_FILE_CHARS
    assert manifest.startswith("---\nname: pr-review\n")
    assert await read((root,), name="pr-review", file="steps/one.md") == "Do it."


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": "none"}, "Error: unknown skill 'none'"),
        (
            {"name": "pr-review", "file": "no.md"},
            "Error: file 'no.md' not found in skill 'pr-review'",
        ),
        (
            {"name": "pr-review", "file": "../b/SKILL.md"},
            "Error: file '../b/SKILL.md' not found in skill 'pr-review'",
        ),
        (
            {"name": "pr-review", "file": "/etc/passwd"},
            "Error: file '/etc/passwd' not found in skill 'pr-review'",
        ),
    ],
)
async def test_read_skill_refuses_what_is_not_there(root, arguments, told):
    """The model reads what is missing."""
    write(root / "a")
    write(root / "b", name="b")

    with pytest.raises(ToolError) as caught:
        await read((root,), **arguments)

    assert caught.value.told == told


async def test_without_skills_nothing_is_offered(root):
    """No prompt, no tool, and no file is touched."""
    library = SkillLibrary((root,))

    shelf = await library.open(())

    assert (shelf.prompt, library.tools(shelf, ())) == ("", ())


async def test_an_agent_is_told_of_its_skills_and_reads_them(root):
    """The prompt lists them after its own text; warnings are in the report."""
    write(root / "a", body="Look twice.")
    script = Script(calls(ToolCall("c1", "read_skill", {"name": "pr-review"})), says("Done"))
    given = model_call(system_prompt="Be kind.")
    skills = tuple((NODE, {"extra_config": {"skill_path": path}}) for path in ("", ".."))
    parts = AgentParts(models=model_parts(script), tools={}, skills=SkillLibrary((root,)))

    outcome = await agent_component(parts)(
        replace(given, attached=replace(given.attached, skills=skills))
    )

    (role, prompt), *_, (_, result) = script.texts()
    assert role == "system"
    assert prompt.startswith("Be kind.\n\n")
    assert prompt.endswith("\n- pr-review: Review a pull request")
    assert result.endswith("Look twice.")
    assert [warning["code"] for warning in outcome.report.warnings] == ["skill_ignored"]
    assert outcome.report.input["system_prompt"] == "Be kind."
