"""A fork is another workflow with patches, and leaves that workflow alone. engine.md §27.6."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine.dsl import (
    Caller,
    Catalogue,
    Checked,
    Compiled,
    LlmCredential,
    ModelChoice,
    Source,
    SourceNotFound,
    check_document,
    compile_document,
    source_slug,
)
from pipelit.engine.validate import validate_workflow
from tests.kit.dsl import config_of, drawn, error_of, find_in

CATALOGUE = Catalogue(
    credentials=(LlmCredential(id=3, provider_type="openai", models=("gpt-4o", "gpt-4o-mini")),)
)
DESK = """
name: Desk
description: Answers.
tags: [front]
trigger: chat
model: gpt-4o
steps:
  - id: kind
    type: switch
    rules: [{field: trigger.text, operator: contains, value: "?", route: helper}]
    default: talk
  - id: helper
    type: agent
    prompt: Help.
    tools: [calculator, {type: http, url: "http://a"}]
  - id: talk
    type: code
    snippet: "return 1"
  - id: reply
    type: reply_chat
    message: "{{ helper.output }}"
"""
LOOP = """
name: Loop
trigger: manual
steps:
  - id: read
    type: code
    snippet: return [1]
  - id: each
    type: loop
    over: read
    body:
      - {id: one, type: code, snippet: return 1}
      - {id: two, type: code, snippet: return 2}
  - id: after
    type: code
    snippet: return 3
  - id: oops
    type: error_handler
    for: [read, after]
    next: end
"""


def source_of(text: str) -> Source:
    made = compile_document(text, CATALOGUE)
    return Source(
        name=made.name, description=made.description, tags=made.tags,
        nodes=made.nodes, edges=made.edges,
    )  # fmt: skip


SOURCES = {"desk": source_of(DESK), "loop": source_of(LOOP)}
CALLER = Caller(
    node_id="boss",
    model=ModelChoice(credential_id=7, model_name="m", temperature=0.5),
    tools={"web_search": {"searxng_url": "http://search"}},
)


def patched(*patches: str, based_on: str = "desk", catalogue: Catalogue = CATALOGUE) -> Compiled:
    return compile_document(document(*patches, based_on=based_on), catalogue, SOURCES.get)


def document(*patches: str, based_on: str = "desk") -> str:
    listed = "".join(f"\n  - {patch}" for patch in patches) or " []"
    return f"based_on: {based_on}\npatches:{listed}\n"


def ids(compiled: Compiled) -> list[str]:
    return [node.node_id for node in compiled.nodes]


def flow(compiled: Compiled) -> set[str]:
    """Return the edges of the flow, drawn."""
    return {edge for edge in drawn(compiled) if not edge.endswith((":llm", ":tool"))}


def test_a_fork_without_patches_is_the_same_graph_under_a_new_name() -> None:
    """Config, labels, positions and edges are cloned; what it was made of is told."""
    made, source = patched(), SOURCES["desk"]

    assert (made.name, made.description, made.tags) == ("Desk (fork)", "Answers.", ("front",))
    assert (made.nodes, made.edges) == (source.nodes, source.edges)
    assert made.forked_from == "desk"


def test_a_fork_may_have_a_name_of_its_own() -> None:
    """And description and tags."""
    head = "name: Night desk\ndescription: Late.\ntags: [night]\n"
    made = compile_document(head + document(), CATALOGUE, SOURCES.get)

    assert (made.name, made.slug, made.description, made.tags) == (
        "Night desk", "night-desk", "Late.", ("night",),
    )  # fmt: skip


def test_the_source_is_named_before_it_is_looked_up() -> None:
    """Whoever has to fetch it asks for the slug first."""
    assert source_slug(document()) == "desk"
    assert source_slug("name: x\nsteps: []") is None


def test_validating_a_fork_counts_nothing() -> None:
    """workflows.md: 0 in fork form."""
    checked = check_document(document(), CATALOGUE, SOURCES.get)

    assert checked == Checked(valid=True)


def test_a_missing_source_is_told_without_a_stage() -> None:
    """The document may be fine; the same whether it is missing or not visible."""
    text = document(based_on="gone")
    checked = check_document(text, CATALOGUE, SOURCES.get)

    assert checked.errors == ("Source workflow 'gone' not found",)
    with pytest.raises(SourceNotFound, match="Source workflow 'gone' not found"):
        compile_document(text, CATALOGUE, SOURCES.get)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("based_on: desk", "Parse error: Fork mode requires a `patches` list"),
        ("based_on: [desk]\npatches: []", "Parse error: `based_on` must be the slug of a workflow"),
        ("based_on: desk\nname: ' '\npatches: []", "Parse error: DSL requires a `name` field"),
        (
            document(*["{action: remove_step, step: a}"] * 101),
            "Parse error: `patches` must hold at most 100 patches",
        ),
        (document("remove"), "Parse error: Patch 1 must be a mapping"),
        (document("{step_id: a}"), "Parse error: Patch missing `action` field"),
        (document("{action: paint}"), "Parse error: Unknown patch action: 'paint'"),
        (document("{action: add_step}"), "Parse error: add_step patch requires `step`"),
        (document("{type: remove_step}"), "Parse error: remove_step patch requires `step_id`"),
        (
            document("{action: update_prompt, step: helper}"),
            "Parse error: update_prompt patch requires `prompt`",
        ),
        (
            document("{action: update_config, step: helper}"),
            "Parse error: update_config patch requires `config`",
        ),
        (
            document("{action: update_config, step: helper, config: 1}"),
            "Parse error: update_config: `config` must be a mapping",
        ),
        (
            document("{action: add_tool, agent_id: helper}"),
            "Parse error: add_tool patch requires `tool`",
        ),
        (
            document("{action: remove_tool}"),
            "Parse error: remove_tool patch requires `tool_node_id`",
        ),
        (
            document("{action: remove_tool, step: helper}"),
            "Parse error: remove_tool patch requires `tool_type`",
        ),
        (
            document("{action: update_trigger}"),
            "Parse error: update_trigger patch requires `trigger`",
        ),
        (
            document("{action: update_model, step: helper}"),
            "Parse error: update_model patch requires `model`",
        ),
        (
            document("{action: remove_step, step_id: gone}"),
            "Graph build error: Step 'gone' not found for remove_step",
        ),
        (
            document("{action: add_step, after: gone, step: {type: wait}}"),
            "Graph build error: Step 'gone' not found for add_step",
        ),
        (
            document("{action: remove_tool, step: helper, tool_type: datetime}"),
            "Graph build error: Step 'helper' has no tool 'datetime'",
        ),
        (
            document("{action: update_model, step: helper, model: inherit}"),
            "Model resolution error: Cannot inherit model: parent node has no config",
        ),
    ],
)  # fmt: skip
def test_a_broken_fork_says_what_is_wrong(text: str, error: str) -> None:
    """Exact texts. What is wrong with the document itself comes before a missing source."""
    assert error_of(text, CATALOGUE, SOURCES.get) == error


def test_a_step_is_inserted_behind_another() -> None:
    """Every edge that left that one leaves the new step; the new step gets what it needs."""
    made = patched(
        "{action: add_step, after: helper, step: {id: check, type: agent, model: gpt-4o}}"
    )

    assert flow(made) == {
        "trigger_chat_1 → kind", "kind → helper ?helper", "kind → talk ?__other__",
        "helper → check", "check → reply", "talk → reply",
    }  # fmt: skip
    assert "ai_model_check → check :llm" in drawn(made)
    assert [node.id for node in made.nodes] == list(range(1, len(made.nodes) + 1))


@pytest.mark.parametrize("after", ["kind", "read", "each"])
def test_routes_bodies_and_error_edges_stay_with_their_step(after: str) -> None:
    """Only what followed in the plain course of things moves."""
    based_on = "desk" if after == "kind" else "loop"
    made = patched(
        f"{{action: add_step, after: {after}, step: {{id: new, type: wait}}}}", based_on=based_on
    )

    kept = {
        "kind": {"kind → helper ?helper", "kind → talk ?__other__", "kind → new"},
        "read": {"read → oops", "read → new", "new → each"},
        "each": {"each → one :loop_body", "each → new", "new → after"},
    }  # fmt: skip
    assert kept[after] <= set(drawn(made))


def test_a_step_behind_the_last_of_a_body_ends_the_iteration() -> None:
    """The return edge moves with the rest."""
    made = patched("{action: add_step, after: two, step: {id: new, type: wait}}", based_on="loop")

    assert {"two → new", "new → each :loop_return"} <= set(drawn(made))
    assert "two → each :loop_return" not in drawn(made)


def test_a_new_step_may_say_itself_what_comes_next() -> None:
    """`next` and the routes of a switch replace what followed before."""
    made = patched("{action: add_step, after: helper, step: {id: new, type: wait, next: talk}}")

    assert {"helper → new", "new → talk", "talk → reply"} <= flow(made)
    assert not {"helper → reply", "new → reply"} & flow(made)


def test_a_step_without_a_place_is_not_connected() -> None:
    """It gets an id of its own, and validation warns."""
    made = patched("{action: add_step, step: {type: code, snippet: return 2}}")

    assert ids(made)[-1] == "code_1"
    assert "Node 'code_1' is not reachable from any trigger" in made.warnings


@pytest.mark.parametrize(
    ("removed", "based_on", "edges", "left"),
    [
        ("kind", "desk", {"trigger_chat_1 → helper", "trigger_chat_1 → talk"}, set()),
        ("talk", "desk", {"kind → reply ?__other__"}, set()),
        (
            "helper", "desk", {"kind → reply ?helper"},
            {"ai_model_helper", "calculator_helper_1", "http_request_helper_2"},
        ),
        ("one", "loop", {"each → two :loop_body"}, set()),
        ("two", "loop", {"one → each :loop_return"}, set()),
        ("each", "loop", {"read → after"}, {"one", "two"}),
        ("read", "loop", {"trigger_manual_1 → each", "after → oops"}, set()),
        ("oops", "loop", {"read → each", "each → after"}, set()),
    ],
)  # fmt: skip
def test_what_came_before_a_removed_step_leads_to_what_came_after(
    removed: str, based_on: str, edges: set[str], left: set[str]
) -> None:
    """Routes keep their value; what only served the step goes with it, a loop's body too."""
    made = patched(f"{{action: remove_step, step_id: {removed}}}", based_on=based_on)

    assert edges <= set(drawn(made))
    gone = {node.node_id for node in SOURCES[based_on].nodes} - set(ids(made))
    assert gone == {removed} | left


def test_a_prompt_and_a_snippet_are_replaced() -> None:
    """Fences of Markdown are not part of the code."""
    made = patched(
        "{action: update_prompt, step_id: helper, prompt: Be brief.}",
        '{action: update_prompt, step_id: talk, snippet: "```python\\nreturn 5\\n```"}',
    )

    assert find_in(made, "helper").config["system_prompt"] == "Be brief."
    assert config_of(made, "talk")["code"] == "return 5"


def test_config_is_merged() -> None:
    """A nested `extra_config` means the same."""
    made = patched(
        "{action: update_config, step: talk, config: {timeout: 5}}",
        "{action: update_config, step: talk, config: {extra_config: {language: python}}}",
    )

    assert config_of(made, "talk") == {"code": "return 1", "timeout": 5, "language": "python"}


def test_tools_are_added_under_free_ids() -> None:
    """Aliases and inherited settings as everywhere."""
    made = patched(
        "{action: add_tool, step: helper, tool: http}",
        "{action: add_tool, step: helper, tool: {type: http_request, url: 'http://b'}}",
        "{action: add_tool, step: helper, tool: {type: web_search, searxng_url: inherit}}",
        catalogue=Catalogue(credentials=CATALOGUE.credentials, caller=CALLER),
    )

    assert ids(made)[-3:] == [
        "http_request_helper_patched", "http_request_helper_patched_2", "web_search_helper_patched",
    ]  # fmt: skip
    assert config_of(made, "web_search_helper_patched") == {"searxng_url": "http://search"}


@pytest.mark.parametrize(
    "how", ["tool_node_id: http_request_helper_2", "step_id: helper, tool_type: http"]
)
def test_a_tool_is_removed_by_its_id_or_by_its_type(how: str) -> None:
    """Node and edge; the other tool stays."""
    made = patched(f"{{action: remove_tool, {how}}}")

    assert "http_request_helper_2" not in ids(made)
    assert "calculator_helper_1 → helper :tool" in drawn(made)


def test_the_trigger_is_replaced_in_its_place() -> None:
    """Type and settings change, edges stay."""
    made = patched("{action: update_trigger, trigger: {type: webhook, secret: x}}")

    assert made.nodes[0].component_type == "trigger_webhook"
    assert "trigger_chat_1 → kind" in drawn(made)
    assert made.nodes[0].extra == {"secret": "x"}


def test_a_step_gets_another_model_of_its_own() -> None:
    """The old one goes, for nobody else used it."""
    made = patched(
        "{action: update_model, step: helper, model: {capability: mini, temperature: 1}}"
    )

    model = find_in(made, "ai_model_helper").config
    assert (model["model_name"], model["temperature"]) == ("gpt-4o-mini", 1.0)
    assert ids(made).count("ai_model_helper") == 1


def test_patches_are_applied_in_order() -> None:
    """A later one sees what an earlier one made."""
    made = patched(
        "{action: add_step, after: helper, step: {id: a, type: wait}}",
        "{action: add_step, after: a, step: {id: b, type: wait}}",
        "{action: remove_step, step_id: a}",
    )

    assert {"helper → b", "b → reply"} <= flow(made)


def test_unknown_keys_of_a_patch_are_warned_of() -> None:
    """With what was perhaps meant."""
    made = patched("{action: add_step, afer: helper, step: {type: wait}}")

    assert "Patch add_step: unknown key 'afer' is ignored; did you mean 'after'?" in made.warnings


steps = st.sampled_from(["kind", "helper", "talk", "reply", "new", "newer"])
patches = st.one_of(
    st.builds("{{action: remove_step, step_id: {}}}".format, steps),
    st.builds("{{action: add_step, after: {}, step: {{id: {}, type: wait}}}}".format, steps, steps),
    st.builds("{{action: add_tool, step_id: {}, tool: datetime}}".format, steps),
    st.builds("{{action: update_model, step_id: {}, model: gpt-4o}}".format, steps),
    st.builds("{{action: remove_tool, step_id: {}, tool_type: datetime}}".format, steps),
)


@given(st.lists(patches, max_size=6))
def test_whatever_is_patched_the_source_stays_and_the_result_is_sound(written: list[str]) -> None:
    """A fork that compiles has no dangling edge, and rows numbered in order."""
    before = source_of(DESK)

    checked = check_document(document(*written), CATALOGUE, SOURCES.get)

    assert SOURCES["desk"] == before
    if checked.valid:
        made = patched(*written)
        assert validate_workflow(made.nodes, made.edges).valid
        assert _rows(made.nodes) == list(range(1, len(made.nodes) + 1))
        assert _rows(made.edges) == list(range(1, len(made.edges) + 1))
    else:
        assert not any("references unknown" in error for error in checked.errors)


def _rows(parts: Iterable[Any]) -> list[int]:
    return [part.id for part in parts]
