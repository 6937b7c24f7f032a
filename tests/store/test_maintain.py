"""Backup, check and upgrade of a database beside the server. Contract: operations.md §4."""

from pathlib import Path

import pytest
from sqlalchemy import URL, delete, insert, update

from pipelit.store import StartError, maintain, schema
from pipelit.store.database import Purpose, open_engine
from pipelit.store.migrate import Migrations
from pipelit.store.queries import meta
from pipelit.store.secrets import KEY_FILE, Secrets, new_key
from tests.kit.flows import ADA, store_workflow
from tests.store.test_open import NOW, config_for

EVENTS, RUNS = schema.execution_events, schema.executions


def change(url: URL, *statements: object) -> None:
    engine = open_engine(url, Purpose.MIGRATE)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]
    engine.dispose()


def leave_run(url: URL) -> None:
    """Store a running execution with two events and two records."""
    engine = open_engine(url, Purpose.MIGRATE)
    with engine.begin() as conn:
        conn.execute(insert(schema.users).values(id=ADA, username="ada", created_at=NOW))
        workflow_id = store_workflow(conn, ["t > a"], "flow", {})
        run = {
            "id": "e1", "created_seq": 1,
            "workflow_id": workflow_id, "trigger_node_id": "t", "thread_id": "x",
            "serial": False, "status": "running", "source": "manual", "trigger": {},
            "snapshot": {"nodes": []}, "limit_seconds": 1, "created_at": NOW, "started_at": NOW,
            "last_activity_at": NOW, "last_seq": 2,
        }  # fmt: skip
        conn.execute(insert(RUNS).values(**run))
        for number, kind in enumerate(("execution_started", "node_status"), start=1):
            event = {"seq": number, "type": kind, "timestamp": 1.0, "data": {}}
            conn.execute(insert(EVENTS).values(execution_id="e1", **event))
            record = {"position": number, "node_id": kind, "iteration": "", "kind": "result"}
            conn.execute(insert(schema.journal).values(execution_id="e1", record={}, **record))
    engine.dispose()


def test_an_empty_database_is_brought_to_this_version(tmp_path: Path) -> None:
    """The second time there is nothing to do."""
    url = URL.create("sqlite+pysqlite", database=str(tmp_path / "new.sqlite3"))
    config = config_for(url, tmp_path)
    said: list[str] = []

    assert maintain.upgrade(config, said.append).before is None
    done = maintain.upgrade(config, said.append)
    assert done.before == done.after == Migrations().newest


def test_a_backup_is_a_whole_database_in_one_file(store_url: URL, tmp_path: Path) -> None:
    """Checked, private, and nothing beside it."""
    target = tmp_path / "copy" / "backup.sqlite3"
    target.parent.mkdir()
    done = maintain.back_up_to(config_for(store_url, tmp_path), target)
    copy = store_url.set(database=done.path)

    assert [p.name for p in target.parent.iterdir()] == ["backup.sqlite3"]
    assert target.stat().st_mode & 0o077 == 0
    findings = maintain.check(config_for(copy, tmp_path))
    assert all(finding.status != "failed" for finding in findings)


def test_a_backup_replaces_nothing(store_url: URL, tmp_path: Path) -> None:
    """A second one needs another name."""
    target = tmp_path / "backup"
    target.write_text("mine")
    with pytest.raises(StartError, match="exists already"):
        maintain.back_up_to(config_for(store_url, tmp_path), target)

    assert target.read_text() == "mine"


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """By neither."""
    url = URL.create("sqlite+pysqlite", database=str(tmp_path / "no.sqlite3"))
    for action in (maintain.check, lambda config: maintain.back_up_to(config, None)):
        with pytest.raises(StartError, match="There is no database"):
            action(config_for(url, tmp_path))

    assert not (tmp_path / "no.sqlite3").exists()


def failed(url: URL, directory: Path) -> list[str]:
    return [f.check for f in maintain.check(config_for(url, directory)) if f.status == "failed"]


def test_a_sound_database_passes_every_check(store_url: URL, tmp_path: Path) -> None:
    """Also with an execution that a crash left behind."""
    leave_run(store_url)

    assert failed(store_url, tmp_path) == []


def test_the_wrong_key_is_found(store_url: URL, tmp_path: Path) -> None:
    """Before anybody needs a secret."""
    (tmp_path / KEY_FILE).write_text(new_key())
    change(
        store_url,
        insert(schema.meta).values(
            key=meta.ENCRYPTION_CHECK, value=Secrets(new_key()).check_value()
        ),
    )

    assert failed(store_url, tmp_path) == ["secrets"]


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (delete(EVENTS).where(EVENTS.c.seq == 1), ["event numbers"]),
        (update(RUNS).values(completed_at=NOW), ["states"]),
        (update(RUNS).values(snapshot=None), ["states"]),
        (update(RUNS).values(status="completed", completed_at=NOW), ["last events"]),
        (delete(schema.journal).where(schema.journal.c.position == 1), ["journals"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_wrong_with_an_execution_is_found(
    store_url: URL, tmp_path: Path, statement: object, found: list[str]
) -> None:
    """By the name of the rule."""
    leave_run(store_url)
    change(store_url, statement)

    assert failed(store_url, tmp_path) == found
