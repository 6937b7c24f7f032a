"""The catalogue of component types says what the contract's tables say."""

from pathlib import Path

import pytest

from pipelit.engine import specs

SLOT_LETTERS = {"M": "model", "T": "tools", "Y": "memory", "P": "output_parser", "S": "skills"}


def table(name: str) -> list[list[str]]:
    """Return the cells of one of the contract's tables, copied beside this test."""
    text = (Path(__file__).parent / "tables" / name).read_text(encoding="utf-8")
    return [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]


def written(ports: tuple[specs.Port, ...]) -> str:
    """Write ports as the contract does: `text STRING, files ARRAY*`."""
    cells = (f"{p.name} {p.data_type.upper()}{'*' * p.required}" for p in ports)
    return ", ".join(cells) or "–"


def test_there_are_48_types_and_each_is_described() -> None:
    """Every type the API accepts has exactly one description."""
    assert len(specs.COMPONENT_TYPES) == 48
    assert set(specs.COMPONENT_TYPES) == set(specs.SPECS)


@pytest.mark.parametrize("row", table("identity.txt"), ids=lambda row: row[0])
def test_identity_is_the_contracts(row: list[str]) -> None:
    """Label, category, icon, colour and role are those of node-types.md §2."""
    spec = specs.SPECS[row[0]]

    assert row[1:] == [spec.label, spec.category, spec.icon, spec.color, spec.role]


@pytest.mark.parametrize("row", table("ports.txt"), ids=lambda row: row[0])
def test_ports_and_slots_are_the_contracts(row: list[str]) -> None:
    """Ports, slots and the primary port are those of node-types.md §3."""
    spec = specs.SPECS[row[0]]
    slots = tuple(
        specs.Slot(name=SLOT_LETTERS[cell[0]], mandatory=cell.endswith("*"))  # type: ignore[arg-type]
        for cell in row[3].split()
        if cell != "–"
    )

    assert row[1] == written(spec.inputs)
    assert row[2] == written(spec.outputs)
    assert slots == spec.slots
    assert row[4] == (spec.primary_port or "–")


@pytest.mark.parametrize("row", table("descriptions.txt"), ids=lambda row: row[0])
def test_descriptions_are_the_contracts(row: list[str]) -> None:
    """The description is the text of node-types.md §3.1."""
    assert row[1] == specs.SPECS[row[0]].description


def test_roles_decide_what_may_be_attached_and_walked() -> None:
    """Attach-only is config or tool, tool-capable is tool or dual, unknown is neither."""
    assert specs.is_attach_only("ai_model")
    assert specs.is_attach_only("memory_read")
    assert not specs.is_attach_only("calculator")
    assert specs.is_tool_capable("calculator")
    assert not specs.is_tool_capable("skill")
    assert not specs.is_attach_only("unheard_of")
    assert not specs.is_tool_capable("unheard_of")
    assert not specs.is_dual("agent")


def test_an_unknown_type_is_its_own_name_and_has_no_primary_port() -> None:
    """Stored data of another version is shown, not refused."""
    assert specs.spec_of("unheard_of") is None
    assert specs.display_name("unheard_of") == "unheard_of"
    assert specs.primary_port("unheard_of") is None
    assert specs.display_name("reply_chat") == "Reply to Chat"
    assert specs.primary_port("http_request") == "body"


def test_a_registry_entry_shows_handles_in_the_clients_order() -> None:
    """Sub-inputs come as model, tools, memory, output_parser, skills; a mandatory one says so."""
    entry = specs.registry_entry(specs.SPECS["agent"])

    assert [slot["name"] for slot in entry["sub_inputs"]] == ["model", "tools", "memory", "skills"]
    assert [slot["data_type"] for slot in entry["sub_inputs"]] == ["llm", "tool", "memory", "skill"]
    assert [slot["required"] for slot in entry["sub_inputs"]] == [True, False, False, False]
    assert entry["requires_tools"] is True
    assert entry["requires_output_parser"] is False
    assert entry["executable"] is True
    assert entry["display_name"] == entry["label"] == "Agent"


def test_only_three_types_are_not_executable() -> None:
    """Published clients expect even triggers to report true."""
    silent = {name for name, entry in specs.registry().items() if not entry["executable"]}

    assert silent == {"ai_model", "output_parser", "skill"}


def test_config_is_complete_and_keeps_only_what_belongs_to_the_type() -> None:
    """Fields of other types are dropped silently and read back as defaults."""
    given = {"temperature": 0.2, "is_active": False, "llm_model_config_id": 9, "extra": 1}

    model = specs.complete_config("ai_model", given)
    trigger = specs.complete_config("trigger_chat", given)

    assert list(specs.CONFIG_DEFAULTS) == list(model)
    assert (model["temperature"], model["is_active"]) == (0.2, True)
    assert (trigger["temperature"], trigger["is_active"]) == (None, False)
    assert model["llm_model_config_id"] is None


def test_two_configs_never_share_a_default_object() -> None:
    """Changing one node's config cannot change another's."""
    first = specs.complete_config("code", {})

    first["extra_config"]["code"] = "x"

    assert specs.complete_config("code", {})["extra_config"] == {}


def test_the_schema_of_rules_offers_30_operators() -> None:
    """Switch and filter may name exactly the operators the engine knows."""
    for name in ("switch", "filter"):
        rule = specs.SPECS[name].config_schema["properties"]["rules"]["items"]
        assert len(rule["properties"]["operator"]["enum"]) == 30
