"""How well a workflow fits a need. Contract: engine.md §28."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelit.engine.discovery import (
    BadRequirements,
    Candidate,
    Requirements,
    describe,
    rank,
    read_requirements,
    recommend,
)

NAMES = st.lists(st.sampled_from("abcde"), max_size=4, unique=True).map(tuple)
REQUIREMENTS = st.builds(
    Requirements,
    triggers=NAMES,
    node_types=NAMES,
    tools=NAMES,
    tags=NAMES,
    description=st.text("ab word", max_size=9),
    model_capability=st.sampled_from(["", "gpt", "x"]),
)


def candidate(**more: object) -> Candidate:
    return Candidate(
        **{
            "workflow_id": 1,
            "slug": "w",
            "name": "Research",
            "description": "Looks things up in the library",
            "tags": ("web",),
            "triggers": ("trigger_chat",),
            "node_types": ("agent",),
            "tools": ("calculator",),
            "model_names": ("gpt-4o",),
            **more,
        }
    )


CANDIDATES = st.builds(
    candidate,
    slug=st.sampled_from("uvw"),
    triggers=NAMES,
    tools=NAMES,
    tags=NAMES,
    completed=st.integers(0, 3),
    failed=st.integers(0, 3),
)


@pytest.mark.parametrize(
    ("wanted", "found", "score", "advice"),
    [
        ({}, {}, 0.95, "reuse"),
        ({"triggers": ["chat"], "tools": ["web_search"]}, {}, 0.55, "fork_and_patch"),
        ({"triggers": ["trigger_chat"], "node_types": ["agent"]}, {}, 0.95, "reuse"),
        ({"model_capability": "GPT"}, {}, 0.95, "reuse"),
        ({"model_capability": "claude"}, {}, 0.15, "create_new"),
        ({"tags": ["web", "x"]}, {}, 0.9, "fork_and_patch"),
        ({}, {"completed": 3, "failed": 1}, 0.975, "reuse"),
        ({"description": "in the LIBRARY"}, {}, 1.0, "reuse"),
        ({"description": "library research plan"}, {}, 1.0, "reuse"),
        ({"description": "quite another thing"}, {}, 0.95, "reuse"),
    ],
)
def test_scores_are_those_of_the_contract(wanted, found, score, advice):
    """Coverage, tags, success, and a bonus for what is said of it."""
    row = describe(read_requirements(wanted), candidate(**found))

    assert row["score"] == pytest.approx(score)
    assert row["recommendation"] == advice


def test_a_row_tells_what_is_missing_and_what_is_more():
    wanted = read_requirements({"triggers": ["webhook"], "tools": ["web_search"]})

    assert describe(wanted, candidate(completed=1, failed=3, executions=5)) == {
        "workflow_id": 1,
        "slug": "w",
        "name": "Research",
        "description": "Looks things up in the library",
        "tags": ["web"],
        "score": 0.125,
        "recommendation": "create_new",
        "capabilities": {
            "triggers": ["trigger_chat"],
            "node_types": ["agent"],
            "tools": ["calculator"],
            "model_names": ["gpt-4o"],
        },
        "gaps": {"triggers": ["trigger_webhook"], "node_types": [], "tools": ["web_search"]},
        "extra": {
            "triggers": ["trigger_chat"],
            "node_types": ["agent"],
            "tools": ["calculator"],
        },
        "success_rate": 0.25,
        "execution_count": 5,
    }


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ([], "requirements must be a JSON object"),
        ("x", "requirements must be a JSON object"),
        ({"tools": "x"}, "tools must be a list of strings"),
        ({"tags": [1]}, "tags must be a list of strings"),
        ({"description": 1}, "description must be a string"),
    ],
)
def test_what_is_no_need_is_refused(raw, problem):
    with pytest.raises(BadRequirements, match=problem):
        read_requirements(raw)


@given(REQUIREMENTS, st.lists(CANDIDATES, max_size=6), st.integers(1, 5))
def test_the_best_come_first(wanted, found, limit):
    """Scores are 0 to 1; equal ones follow the slug; advice follows the rounded score."""
    rows = rank(wanted, found, limit)

    assert len(rows) == min(limit, len(found))
    assert all(0 <= row["score"] <= 1 for row in rows)
    assert rows == sorted(rows, key=lambda row: (-row["score"], row["slug"]))
    assert [row["recommendation"] for row in rows] == [recommend(row["score"]) for row in rows]
