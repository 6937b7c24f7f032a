"""The routes of the server against the checklist of the contract. README.md §11."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.kit.site import Site

pytestmark = pytest.mark.slow

CHECKLIST = Path(__file__).parents[2] / "docs" / "reference" / "README.md"
ROW = re.compile(r"^\| ☐ \| ([A-Z]+) \| (/\S+)(.*)$", re.MULTILINE)
SECTIONS = (
    *("auth", "workflows", "nodes", "edges", "executions", "chat", "credentials", "schedules"),
    *("memory", "epics", "tasks", "health"),
)
LATER = re.compile(r"/retry/")


def checklist() -> dict[tuple[str, str], str]:
    """{(method, path): the rest of its row}; parameters are `{}`, without a slash at the end."""
    rows = ROW.findall(CHECKLIST.read_text("utf-8"))
    assert len(rows) > 100
    return {
        (method, normal(path if "(root)" in rest else f"/api/v1{path}")): rest
        for method, path, rest in rows
    }


def normal(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path).rstrip("/")


@pytest.fixture(scope="module")
def declared(site: Site) -> dict[tuple[str, str], Any]:
    """{(method, path): operation} as the server declares them."""
    document = httpx2.get(f"{site.url}/openapi.json", trust_env=False).json()
    return {
        (method.upper(), normal(path)): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_every_endpoint_of_the_finished_sections_is_there(declared: Any) -> None:
    """With its method and path."""
    wanted = {
        (method, path)
        for (method, path), rest in checklist().items()
        if method != "WS" and any(f"| {section} |" in rest for section in SECTIONS)
        if not LATER.search(f"{path}/")
    }

    assert len(wanted) > 40
    assert wanted - declared.keys() == set()


def test_no_endpoint_is_there_that_the_contract_does_not_know(declared: Any) -> None:
    """What is served is promised."""
    assert declared.keys() - checklist().keys() == set()


def test_each_endpoint_answers_with_the_promised_status(declared: Any) -> None:
    """The first one of the row, and asks for a key where the row says so."""
    for key, rest in checklist().items():
        if key not in declared:
            continue
        operation = declared[key]
        (success,) = re.findall(r"\| (\d\d\d)[ /0-9]* \|", rest)
        assert success in operation["responses"], key
        if "| – |" in rest.replace("health | 200 | –", "| – |"):
            assert operation["security"] == [], key
        elif re.search(r"\| [AB](,[^|]*)? \|", rest):
            assert operation["security"] == [{"bearer": []}], key
