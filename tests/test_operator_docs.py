"""What operators read names what there is, and all of it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelit.cli.app import program
from pipelit.metrics import Metrics
from pipelit.settings import Settings, variable
from tests.cli.test_docs import leaves

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DEPLOY = ROOT / "ops" / "deploy"
RUNBOOK = (DOCS / "runbook.md").read_text()
OPERATIONS = (DOCS / "reference" / "operations.md").read_text()
OPERATORS = (DOCS / "operators.md").read_text()

METRIC = re.compile(r"\bpipelit_[a-z_]+")
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)#\s]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def families() -> set[str]:
    """Return the names of all series that the server can show."""
    text = Metrics().render().decode()
    return set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


def family(name: str) -> str:
    return re.sub(r"_(bucket|count|sum)$", "", name)


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def panels() -> Iterator[str]:
    for panel in json.loads((DEPLOY / "grafana.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def test_dashboard_and_alerts_show_only_metrics_that_exist() -> None:
    """By the names of the server's own registry."""
    text = "\n".join([*panels(), *(alert["expr"] for alert in alerts())])
    named = {family(name) for name in METRIC.findall(text)}

    assert len(named) > 20
    assert named - families() == set()


def test_the_dashboard_shows_every_metric() -> None:
    """Nothing is counted that nobody sees."""
    named = {family(name) for name in METRIC.findall("\n".join(panels()))}

    assert families() - named == set()


def test_every_metric_is_documented() -> None:
    """In the operators' table."""
    named = set(re.findall(r"^\| `(pipelit_[a-z_]+)", OPERATORS, re.MULTILINE))

    assert named == families()


def test_every_alert_is_in_the_runbook() -> None:
    """Under the heading that the alert links to, and no other heading is there."""
    headings = re.findall(r"^### (\S+)$", RUNBOOK, re.MULTILINE)

    assert headings == [alert["alert"] for alert in alerts()]
    for alert in alerts():
        assert alert["annotations"]["runbook"].endswith(f"#{alert['alert'].lower()}")


def test_every_supervision_event_is_in_the_contract_and_the_runbook() -> None:
    """Those that the code emits, too."""
    table = OPERATIONS.partition("| `event` | When |")[2].partition("\n\n")[0]
    known = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row[:60])}
    explained = set(re.findall(r"^\| `(\w+)` \|", RUNBOOK, re.MULTILINE))
    emitted = {
        name
        for path in (ROOT / "pipelit" / "actors").rglob("*.py")
        for name in re.findall(r"emit\(\s*\"(\w+)\"", path.read_text())
    }

    assert len(emitted) > 10
    assert emitted - explained == set()
    assert explained - known == set()


@pytest.mark.parametrize("command", sorted(leaves(program)))
def test_every_command_is_documented(command: str) -> None:
    """Operators' and users' commands alike, somewhere a person looks."""
    places = ("README.md", "docs/tutorial.md", "docs/operators.md", "docs/reference/operations.md")
    text = "\n".join((ROOT / place).read_text() for place in places)
    head, _, tail = command.partition(" ")

    pattern = rf"`?pipelit {head}\b"
    assert any(tail in line for line in text.splitlines() if re.search(pattern, line)), command


def test_every_setting_is_documented() -> None:
    """By its name without the prefix."""
    text = (DOCS / "reference" / "settings.md").read_text()
    names = {variable(field).removeprefix("PIPELIT_") for field in Settings.model_fields}

    assert {name for name in names if f"`{name}`" not in text} == set()


@pytest.mark.parametrize(
    "document", sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")]), ids=lambda path: path.stem
)
def test_no_link_is_dead(document: Path) -> None:
    """Neither to a file nor to a heading of it."""
    text = FENCE.sub("", document.read_text())
    for target, anchor in LINK.findall(text):
        if "://" in target or target.startswith("mailto:"):
            continue
        path = (document.parent / target).resolve() if target else document
        assert path.exists(), f"{document.name}: {target}"
        if anchor and path.suffix == ".md":
            assert anchor[1:] in set(anchors(path.read_text())), f"{document.name}: {anchor}"


def test_every_document_is_in_the_index() -> None:
    """And the index is where a newcomer begins."""
    indexed = set(LINK.findall((DOCS / "README.md").read_text()))

    assert {(path.name, "") for path in DOCS.glob("*.md")} - indexed == {("README.md", "")}
    assert "](docs/README.md)" in (ROOT / "README.md").read_text()


def anchors(text: str) -> Iterator[str]:
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
