"""Workflows written down compile to the graphs the contract shows, or say exactly why not."""

import pytest

from pipelit.engine.dsl import (
    BuildError,
    Caller,
    Catalogue,
    Checked,
    LlmCredential,
    ModelChoice,
    check_document,
    compile_document,
)
from tests.kit.dsl import NOBODY, config_of, drawn, error_of, steps

CREDENTIAL = LlmCredential(id=3, provider_type="openai", models=("gpt-4o", "gpt-4o-mini"))
LISTED = Catalogue(credentials=(CREDENTIAL,))
CALLER = Caller(
    node_id="boss",
    model=ModelChoice(credential_id=7, model_name="m", temperature=0.5),
    tools={"web_search": {"searxng_url": "http://search"}},
)
CALLED = Catalogue(caller=CALLER)

EXAMPLE_A = """
name: Release notes writer
tags: [release]
trigger: manual
model: inherit
steps:
  - id: fetch
    type: http
    url: "https://git.example.org/api/changes?since={{ trigger.payload.since }}"
    timeout: 20
  - id: writer
    type: agent
    prompt: |
      Turn this change list into release notes:
      {{ fetch.body }}
    tools:
      - calculator
      - type: web_search
        config: {searxng_url: inherit}
    conversation_memory: false
  - id: answer
    type: reply_chat
    message: "{{ writer.output }}"
"""

EXAMPLE_B = """
name: Invoice intake
trigger: {type: webhook}
model: {capability: "gpt-4o-mini", temperature: 0}
steps:
  - id: read
    type: extractor
    prompt: "Read the invoice lines."
    schema: {total: number, lines: array}
  - id: size
    type: switch
    rules:
      - {field: "read.extracted.total", operator: gt, value: 1000, route: approve}
    default: small
  - id: approve
    type: human
    message: "Pay {{ read.extracted.total }}?"
    on_reject: cancel
  - id: small
    type: code
    snippet: "return 'auto-approved'"
  - id: book
    type: loop
    over: "{{ read.extracted.lines }}"
    on_error: continue
    body:
      - id: post_line
        type: http
        method: POST
        url: "https://ledger.example.org/lines"
        body: "{{ loop.item | tojson }}"
  - id: done
    type: reply_chat
    message: "Booked {{ book.count }} lines"
    next: end
  - id: oops
    type: error_handler
    for: read
    next: end
"""


def test_example_a_compiles_to_its_table() -> None:
    """Linear, tools, an http step: engine.md §27.7."""
    compiled = compile_document(EXAMPLE_A, CALLED)

    assert (compiled.name, compiled.slug, compiled.tags) == (
        "Release notes writer",
        "release-notes-writer",
        ("release",),
    )
    assert [(node.node_id, node.component_type) for node in compiled.nodes] == [
        ("trigger_manual_1", "trigger_manual"),
        ("fetch", "http_request"),
        ("writer", "agent"),
        ("answer", "reply_chat"),
        ("ai_model_writer", "ai_model"),
        ("calculator_writer_1", "calculator"),
        ("web_search_writer_2", "web_search"),
    ]
    assert drawn(compiled) == [
        "trigger_manual_1 → fetch",
        "fetch → writer",
        "writer → answer",
        "ai_model_writer → writer :llm",
        "calculator_writer_1 → writer :tool",
        "web_search_writer_2 → writer :tool",
    ]
    assert config_of(compiled, "fetch")["timeout"] == 20
    assert config_of(compiled, "web_search_writer_2") == {"searxng_url": "http://search"}
    assert compiled.nodes[2].config["system_prompt"].startswith("Turn this change list")
    model = compiled.nodes[4].config
    assert (model["llm_credential_id"], model["model_name"], model["temperature"]) == (7, "m", 0.5)
    assert compiled.warnings == ()


def test_example_b_compiles_to_its_table() -> None:
    """Switch, loop, approval, join, error edge: engine.md §27.8."""
    compiled = compile_document(EXAMPLE_B, LISTED)

    assert sorted(drawn(compiled)) == sorted(
        [
            "trigger_webhook_1 → read",
            "read → size",
            "size → approve ?approve",
            "size → small ?__other__",
            "approve → book",
            "small → book",
            "book → post_line :loop_body",
            "post_line → book :loop_return",
            "book → done",
            "read → oops",
            "ai_model_read → read :llm",
        ]
    )
    assert config_of(compiled, "size") == {
        "rules": [
            {"id": "approve", "field": "read.extracted.total", "operator": "gt", "value": 1000}
        ],
        "enable_fallback": True,
    }
    assert config_of(compiled, "book") == {
        "source_node": "read",
        "field": "extracted.lines",
        "max_iterations": 100,
        "on_error": "continue",
    }
    approve = next(node for node in compiled.nodes if node.node_id == "approve")
    assert approve.interrupt_before
    model = next(node for node in compiled.nodes if node.node_id == "ai_model_read")
    assert (model.config["model_name"], model.config["temperature"]) == ("gpt-4o-mini", 0.0)
    assert compiled.warnings == ()


def test_the_published_request_is_valid() -> None:
    """workflows.md, last example."""
    text = "name: ping\ntrigger: chat\nsteps:\n  - id: say\n    type: reply_chat\n    message: pong"

    assert check_document(text, NOBODY) == Checked(valid=True, node_count=2, edge_count=1)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[1]", "DSL must be a YAML mapping (dict)"),
        ("", "DSL must be a YAML mapping (dict)"),
        ("steps: []", "DSL requires a `name` field"),
        ("name: x", "DSL requires a `steps` list"),
        ("name: x\nsteps: []", "`steps` must be a non-empty list"),
        (
            steps("{type: wait}", head="name: x\ntrigger: mail\n"),
            "Unknown trigger type 'mail'. Valid: chat, telegram, manual, schedule, error, "
            "webhook, workflow, none",
        ),
        (steps("wait"), "Step 1 must be a mapping"),
        (steps("{type: wait}", "{id: a}"), "Step 2 missing `type` field"),
        (
            steps("{id: a, type: wait}", "{id: a, type: wait}"),
            "Duplicate step ID 'a' in step 2",
        ),
        (steps("{id: l, type: loop}"), "Loop step 'l' requires a non-empty `body` list"),
        (steps("{id: a b, type: wait}"), "Invalid step ID 'a b' in step 1"),
        ("name: x\ntags: [1]\nnodes: []", "`tags` must be a list of texts"),
        (
            "name: x\nmax_execution_seconds: 0\nsteps: [{type: wait}]",
            "`max_execution_seconds` must be an integer from 1 to 86400",
        ),
        ("name: x\nnodes: [{id: a}]", "Node 1 missing `type` field"),
        ("name: x\nnodes: [7]", "`nodes` must be a list of mappings"),
    ],
)
def test_what_cannot_be_read_is_a_parse_error(text: str, error: str) -> None:
    """Exact texts, with the stage in front."""
    assert error_of(text) == f"Parse error: {error}"


def test_an_unknown_step_type_lists_the_known_ones() -> None:
    """In the order of the contract's table."""
    error = error_of(steps("{type: magic}"))

    assert error.startswith("Parse error: Unknown step type 'magic' in step 1. Valid: agent, deep")
    assert error.endswith("identify_user, error_handler")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            steps("{id: a, type: wait, next: gone}"),
            "Step 'a' refers to unknown step 'gone'",
        ),
        (
            steps("{id: s, type: switch, rules: [{field: x, route: gone}]}"),
            "Step 's' refers to unknown step 'gone'",
        ),
        (steps("{id: s, type: switch, default: gone}"), "Step 's' refers to unknown step 'gone'"),
        (
            steps("{id: w, type: wait}", "{id: e, type: error_handler, for: [w, gone]}"),
            "Step 'e' refers to unknown step 'gone'",
        ),
        (
            steps("{id: a, type: agent, tools: [{type: calculator, x: inherit}]}"),
            "Cannot inherit tool config: no parent node",
        ),
        (
            steps("{id: f, type: filter, over: [1, 2]}"),
            "Step 'f': `over` must be a node id or a field of a node, not [1, 2]",
        ),
        (
            steps("{id: ai_model_a, type: wait}", "{id: a, type: agent, model: gpt}"),
            "Duplicate node ID 'ai_model_a'",
        ),
    ],
)
def test_what_makes_no_graph_is_a_build_error(text: str, error: str) -> None:
    """Exact texts, with the stage in front."""
    assert error_of(text, LISTED) == f"Graph build error: {error}"


def test_a_tool_must_be_one() -> None:
    """The answer lists every type that may be attached, and the short names."""
    error = error_of(steps("{id: a, type: agent, tools: [agent]}"))

    assert error.startswith("Graph build error: Unknown inline tool type 'agent'. Valid: run_comm")
    assert error.endswith(", http, code")


@pytest.mark.parametrize(
    ("tool", "error"),
    [
        ("calculator, k: inherit", "No matching tool 'calculator' found on parent node 'boss'"),
        ("web_search, k: inherit", "Parent tool 'web_search' has no key 'k' in extra_config"),
    ],
)
def test_only_what_the_caller_has_is_inherited(tool: str, error: str) -> None:
    """Exact texts of engine.md §27.3."""
    text = steps(f"{{id: a, type: agent, tools: [{{type: {tool}}}]}}")

    assert error_of(text, CALLED) == f"Graph build error: {error}"


def test_every_error_of_the_graph_is_told() -> None:
    """A graph that was built but is not sound keeps its counts."""
    text = steps("{id: a, type: agent}", "{id: h, type: http}")

    checked = check_document(text, NOBODY)

    assert checked.errors == (
        "Graph build error: Node 'a' is missing required 'model' connection",
        "Graph build error: Node 'h' (http_request): 'url' is required",
    )
    assert (checked.node_count, checked.edge_count) == (3, 2)
    with pytest.raises(BuildError, match=r"^Node 'a' is .* connection; Node 'h' .* required$"):
        compile_document(text, NOBODY)


def test_an_agent_gets_memory_skills_and_aliased_tools() -> None:
    """Each attached node has its id and its label."""
    text = steps(
        "{id: a, type: agent, model: gpt-4o, memory: true,"
        " tools: [http, {type: code, timeout_seconds: 5}],"
        " skills: [pr, {path: qa, source: filesystem}]}"
    )

    compiled = compile_document(text, LISTED)

    assert drawn(compiled)[1:] == [
        "ai_model_a → a :llm",
        "http_request_a_1 → a :tool",
        "code_execute_a_2 → a :tool",
        "memory_read_a → a :memory",
        "memory_write_a → a :memory",
        "skill_a_1 → a :skill",
        "skill_a_2 → a :skill",
    ]
    assert config_of(compiled, "code_execute_a_2") == {"timeout_seconds": 5}
    assert config_of(compiled, "skill_a_2") == {"skill_path": "qa", "skill_source": "filesystem"}


def test_a_parser_and_a_routers_own_model_are_attached() -> None:
    """A router does not take the document's model; a parser feeds an extractor."""
    text = steps(
        "{id: x, type: extractor, output_parser: {parser_type: list}}",
        "{id: r, type: router, condition_field: route}",
        "{id: q, type: router, model: gpt-4o}",
        head="name: x\nmodel: gpt-4o\n",
    )

    compiled = compile_document(text, LISTED)

    assert drawn(compiled)[3:] == [
        "ai_model_x → x :llm",
        "output_parser_x → x :output_parser",
        "ai_model_q → q :llm",
    ]


def test_ids_labels_flags_and_config_have_their_places() -> None:
    """Made-up ids count positions; own keys win over `config`; fences are stripped."""
    text = steps(
        '{type: code, label: L, interrupt_after: true, snippet: "```python\\nreturn 1\\n```",'
        " config: {code: lost, timeout: 9}}",
        '{type: transform, template: "{{ trigger.text }}"}',
        "{name: n, type: wait, delay: 2, delay_unit: minutes}",
        "{type: workflow, slug: other, payload: {a: b}}",
        "{type: loop, over: n, body: [{type: wait}, {type: wait}]}",
        head="name: x\ntrigger: {type: schedule, interval_seconds: 60}\n"
        "trigger_config: {scheduled_job_id: s}\n",
    )

    compiled = compile_document(text, NOBODY)

    assert [node.node_id for node in compiled.nodes] == [
        "trigger_schedule_1",
        "code_1",
        "code_2",
        "n",
        "workflow_4",
        "loop_5",
        "loop_5_wait_1",
        "loop_5_wait_2",
    ]
    assert (compiled.nodes[1].label, compiled.nodes[1].interrupt_after) == ("L", True)
    assert config_of(compiled, "code_1") == {"code": "return 1", "timeout": 9}
    assert config_of(compiled, "code_2") == {"language": "template", "code": "{{ trigger.text }}"}
    assert config_of(compiled, "n") == {"duration": 2, "unit": "minutes"}
    assert config_of(compiled, "workflow_4") == {
        "target_workflow": "other",
        "input_mapping": {"a": "b"},
    }
    assert config_of(compiled, "loop_5")["source_node"] == "n"
    assert compiled.nodes[0].config["extra_config"] == {"interval_seconds": 60}
    assert compiled.nodes[0].config["trigger_config"] == {"scheduled_job_id": "s"}


def test_steps_follow_each_other_as_written() -> None:
    """`next` overrides the order and may fork; `over: trigger…` means the trigger's node."""
    text = steps(
        "{id: a, type: code, snippet: x, next: [c, b]}",
        "{id: b, type: wait, next: end}",
        "{id: c, type: filter, over: trigger.payload.items}",
        "{id: d, type: switch, rules: [{field: x, route: end}, {field: x, route: end}]}",
        head="name: x\ntrigger: chat\n",
    )

    compiled = compile_document(text, NOBODY)

    assert drawn(compiled) == [
        "trigger_chat_1 → a",
        "a → c",
        "a → b",
        "c → d",
        "d → __end__ ?end",
    ]
    assert config_of(compiled, "c") == {"source_node": "trigger_chat_1", "field": "payload.items"}


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            steps("{id: a, type: agent, model: gpt-4o, promt: hi}"),
            "Step 'a': unknown key 'promt' is ignored; did you mean 'prompt'?",
        ),
        (
            steps("{id: w, type: wait, tools: [calculator]}"),
            "Step 'w': unknown key 'tools' is ignored",
        ),
        (
            steps("{id: l, type: loop, over: l, body: [{id: b, type: wait, zzz: 1}]}"),
            "Step 'b': unknown key 'zzz' is ignored",
        ),
        (
            steps("{id: w, type: wait}", head="name: x\ntriggers: chat\n"),
            "Unknown key 'triggers' is ignored; did you mean 'trigger'?",
        ),
        (
            "name: x\nnodes: [{id: a, type: wait, labels: b}]",
            "Node 'a': unknown key 'labels' is ignored; did you mean 'label'?",
        ),
        (
            "name: x\nnodes: []\nedges: [{source: a, target: b, kind: direct}]",
            "Edge 1: unknown key 'kind' is ignored",
        ),
        (
            "workflow: {name: x, slug: y}\nnodes: []",
            "`workflow`: unknown key 'slug' is ignored",
        ),
    ],
)
def test_a_key_nobody_reads_is_warned_of(text: str, warning: str) -> None:
    """Mostly a slip of the pen, so what was perhaps meant is named."""
    assert warning in check_document(text, LISTED).warnings


def test_unknown_keys_are_told_up_to_a_limit() -> None:
    """A document made of them costs no more than fifty."""
    keys = ", ".join(f"k{number}: 1" for number in range(5000))
    checked = check_document(f"{{name: x, nodes: [], {keys}}}", LISTED)

    assert len(checked.warnings) == 51
    assert checked.warnings[-1] == "More unknown keys are ignored"
