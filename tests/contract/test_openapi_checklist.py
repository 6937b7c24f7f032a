"""The routes of the server against the checklist of the contract. README.md §11.

That every row answers and tells what it promises: `test_every_endpoint.py`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.kit.checklist import endpoints, events, shape
from tests.kit.witness import product_witness

HERE = Path(__file__).parent
CHECKLIST = {row.shape: row for row in endpoints().values() if row.method != "WS"}
DOCUMENT = product_witness().document
DECLARED: Mapping[tuple[str, str], Any] = {
    (method.upper(), shape(path)): operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
TESTS = "\n".join(path.read_text("utf-8") for path in HERE.parent.rglob("test_*.py"))
COMMON = {"500", "503"}
"""Said of every endpoint alike; tests/web has them."""


def test_the_checklist_is_read_whole() -> None:
    """Each table of it."""
    text = (HERE.parents[1] / "docs" / "reference" / "README.md").read_text("utf-8")
    assert len(CHECKLIST) == text.count("| ☐ |") - len(("heading",) * 3) - len(("WS",)) > 120


def test_every_endpoint_of_the_contract_is_declared() -> None:
    """With its method and path, and no other is."""
    assert DECLARED.keys() ^ CHECKLIST.keys() == set()


@pytest.mark.parametrize("key", CHECKLIST, ids=" ".join)
def test_each_endpoint_declares_what_the_contract_says_of_it(key: tuple[str, str]) -> None:
    """Its statuses when it succeeds, and whose key it asks for."""
    row, operation = CHECKLIST[key], DECLARED[key]

    assert {str(status) for status in row.statuses} <= operation["responses"].keys()
    if row.auth == "–":
        assert operation["security"] == []
    elif row.auth[0] in "AB":
        assert operation["security"][0].keys() <= {"bearer", "webhook"}
    admins_only = "Admin access required." in str(operation["responses"].get("403"))
    if row.auth == "A":
        assert admins_only


@pytest.mark.parametrize("key", DECLARED, ids=" ".join)
def test_each_operation_has_a_model_and_an_example(key: tuple[str, str]) -> None:
    """Of what it takes and of what it gives."""
    operation = DECLARED[key]

    if "requestBody" in operation:
        (content,) = operation["requestBody"]["content"].values()
        assert content["schema"]
        assert content["examples"]
    for status, response in operation["responses"].items():
        if (content := response.get("content", {}).get("application/json")) and status < "300":
            schema = {**content["schema"], "components": DOCUMENT["components"]}
            for example in content["examples"].values():
                jsonschema_rs.Draft202012Validator(schema).validate(example["value"])


def test_every_declared_error_text_is_expected_by_a_test() -> None:
    """As the contract words it; a refusal that nobody provokes may not be one."""
    unsaid = {text for text in error_texts() if not all(part in TESTS for part in parts(text))}

    assert unsaid == set()


def error_texts() -> Iterator[str]:
    for operation in DECLARED.values():
        for status, response in operation["responses"].items():
            if status >= "400" and status not in COMMON:
                (content,) = response["content"].values()
                for example in content.get("examples", {}).values():
                    yield example["value"]["detail"]


def parts(text: str) -> list[str]:
    """Return the words of an error text around what varies."""
    return [part.strip("'. ") for part in re.split(r"<[^>]*>", text)]


def test_every_event_of_the_contract_is_expected_by_a_test() -> None:
    """Of all tables of websocket.md."""
    wanted = {name for names in events().values() for name in names}
    assert {name for name in wanted if name not in TESTS} == set()
