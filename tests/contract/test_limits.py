"""Every limit of a field, at the border and one over. Contract: README.md §3, §5 and the sections.

What the border itself leads to is the business of each section's own tests; here it is not refused
for its size.
"""

import re
from typing import Any

import pytest

from tests.kit.checklist import API_PREFIX
from tests.kit.site import People
from tests.kit.witness import product_witness

pytestmark = pytest.mark.slow

FLOW = "/workflows/{slug}/"
WORKFLOW = ("/workflows/", {"name": "W", "slug": "{slug}-new"})
NODE = (f"{FLOW}nodes/", {"component_type": "ai_model", "config": {}})
EDGE = (f"{FLOW}edges/", {"source_node_id": "a", "target_node_id": "b"})
LLM = ("/credentials/", {"name": "C", "credential_type": "llm", "detail": {}})
GIT = ("/credentials/", {"name": "C", "credential_type": "git", "detail": {}})
TOOL = ("/credentials/", {"name": "C", "credential_type": "tool", "detail": {}})
SCHEDULE = ("/schedules/", {"name": "S", "workflow_id": 0, "interval_seconds": 60})
CRON = ("/schedules/", {"name": "S", "workflow_id": 0, "cron": "* * * * *"})
EPIC = ("/epics/", {"title": "E"})
TASK = ("/tasks/", {"epic_id": "ep-0", "title": "T"})
KEY = ("/users/me/keys", {"name": "K"})

Request = tuple[str, dict[str, Any]]

LONGEST = [
    (WORKFLOW, "name", 255),
    (WORKFLOW, "description", 100_000),
    (WORKFLOW, "tags[0]", 50),
    (("/workflows/validate-dsl/", {}), "yaml_str", 262_144),
    (NODE, "label", 255),
    (NODE, "config.system_prompt", 100_000),
    (NODE, "config.model_name", 255),
    (EDGE, "condition_value", 100),
    ((f"{FLOW}chat/", {}), "text", 100_000),
    ((f"{FLOW}execute/", {}), "text", 100_000),
    (("/executions/none/resume/", {}), "input", 4000),
    (LLM, "name", 255),
    (LLM, "detail.api_key", 4096),
    (GIT, "detail.provider", 20),
    (TOOL, "detail.tool_type", 20),
    (SCHEDULE, "name", 255),
    (CRON, "cron", 100),
    (EPIC, "title", 255),
    (EPIC, "description", 100_000),
    (TASK, "title", 255),
    (TASK, "workflow_slug", 255),
    (KEY, "name", 100),
]

RANGES = [
    (WORKFLOW, "max_execution_seconds", 1, 86_400),
    (NODE, "config.max_tokens", 1, None),
    (NODE, "config.timeout", 1, None),
    (NODE, "config.max_retries", 0, None),
    (SCHEDULE, "interval_seconds", 1, 31_536_000),
    (SCHEDULE, "timeout_seconds", 1, 86_400),
    (SCHEDULE, "total_repeats", 0, None),
    (SCHEDULE, "max_retries", 0, None),
    (EPIC, "priority", 1, 5),
    (EPIC, "budget_tokens", 0, None),
    (EPIC, "budget_usd", 0, 1_000_000_000_000),
    (TASK, "priority", 1, 5),
    (TASK, "estimated_tokens", 0, None),
    (TASK, "max_retries", 0, None),
]

LISTS = [
    path.removeprefix(API_PREFIX)
    for path, item in product_witness().document["paths"].items()
    if {"limit", "offset"} <= {field["name"] for field in item.get("get", {}).get("parameters", ())}
]


def case_id(value: object) -> str | None:
    """Name a case after its path; the rest names itself."""
    return value[0].replace("/", "-").strip("-{}") if isinstance(value, tuple) else None


@pytest.mark.parametrize(("request_", "place", "longest"), LONGEST, ids=case_id)
async def test_a_text_has_a_longest_length(
    people: People, slug: str, request_: Request, place: str, longest: int
) -> None:
    """One character more is refused in the contract's words."""
    message = f"body.{place}: must be at most {longest} characters"

    assert message not in await problems(people, slug, request_, place, "x" * longest)
    assert message in await problems(people, slug, request_, place, "x" * (longest + 1))


@pytest.mark.parametrize(("request_", "place", "least", "most"), RANGES, ids=case_id)
async def test_a_number_has_a_range(
    people: People, slug: str, request_: Request, place: str, least: int, most: int | None
) -> None:
    """Both ends belong to it."""
    for border, step, message in (
        (least, -1, f"must be >= {least}"),
        (most, 1, f"must be <= {most}"),
    ):
        if border is not None:
            said = f"body.{place}: {message}"
            assert said not in await problems(people, slug, request_, place, border)
            assert said in await problems(people, slug, request_, place, border + step)


@pytest.mark.parametrize("request_", [WORKFLOW, EPIC, TASK], ids=case_id)
async def test_a_resource_has_at_most_50_tags(people: People, slug: str, request_: Request) -> None:
    """Told of the list, not of one of them."""
    message = "body.tags: must have at most 50 items"

    assert message not in await problems(people, slug, request_, "tags", ["x"] * 50)
    assert message in await problems(people, slug, request_, "tags", ["x"] * 51)


@pytest.mark.parametrize("path", LISTS)
async def test_every_list_has_pages_of_0_to_1000(people: People, path: str) -> None:
    """From an offset that is not negative; an empty text is no number."""
    path = re.sub(r"\{\w+\}", "1", path)
    asked = {
        "limit=1000&offset=0": [],
        "limit=0": [],
        "limit=1001&offset=-1": ["query.limit: must be <= 1000", "query.offset: must be >= 0"],
        "limit=-1&offset=": ["query.limit: must be >= 0", "query.offset: must be an integer"],
    }
    for query, wanted in asked.items():
        answer = await people.ada.call("GET", f"{path}?{query}")
        if wanted:
            assert answer.json() == {"detail": {"validation_errors": wanted}}
        else:
            assert answer.status_code in {200, 404}


async def problems(
    people: People, slug: str, request: Request, place: str, value: object
) -> list[str]:
    """Send *value* at *place* of a body that is fine otherwise; return what the schema says."""
    path, body = request
    if path.startswith(FLOW):
        await people.olga.call("POST", "/workflows/", {"name": slug, "slug": slug})
    answer = await people.olga.call("POST", path.format(slug=slug), put(body, place, value, slug))
    detail = answer.json()["detail"] if answer.status_code == 422 else ""
    return list(detail["validation_errors"]) if isinstance(detail, dict) else []


def put(body: dict[str, Any], place: str, value: object, slug: str) -> dict[str, Any]:
    """Return *body* with *value* at *place*: `name`, `inner.name` or `name[0]`."""
    filled = {k: v.format(slug=slug) if isinstance(v, str) else v for k, v in body.items()}
    if place.endswith("[0]"):
        return {**filled, place.removesuffix("[0]"): [value]}
    outer, _, inner = place.rpartition(".")
    return {**filled, outer: {inner: value}} if outer else {**filled, inner: value}
