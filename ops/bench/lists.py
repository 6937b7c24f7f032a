"""Lists and runs when much is stored: pages of executions, and whether a run costs more then."""

import sqlite3
from contextlib import closing
from pathlib import Path

from rig.ends import Ends
from rig.figures import Tell
from rig.http import Connection
from rig.load import drive
from rig.server import Server, build, serving

STORED = 1_000_000


async def measure(directory: Path, seconds: float, tell: Tell) -> None:
    """Tell the rows."""
    async with serving(directory) as server:
        connection = await server.connect()
        say = ("reply_chat", {"extra_config": {"message": "hello"}})
        nodes = {"start": ("trigger_manual", {}), "say": say}
        await build(connection, "short", nodes, "start -> say")
        await _run(connection, server)
        await _runs(server, "few stored", seconds, tell)
        key = server.key
    stored = STORED if seconds >= 10 else STORED // 10
    _multiply(directory / "data" / "db.sqlite3", stored)
    async with serving(directory, key=key) as server:
        for what, query in (
            ("first page", "limit=50"),
            ("page of the failed", "limit=50&status=failed"),
            ("page of a workflow", "limit=50&workflow=short"),
            ("page 100", "limit=50&offset=5000"),
        ):

            async def show(_: int, connection: Connection, query: str = query) -> None:
                await connection.get(f"/executions/?{query}")

            name = f"{stored:,} executions, {what}"
            tell(await drive(name, server, show, clients=1, seconds=seconds))
        await _runs(server, f"{stored:,} stored", seconds, tell)


async def _run(connection: Connection, server: Server) -> None:
    async with Ends.listen(server, ["short"]) as ends:
        answer = await connection.post("/workflows/short/execute/", {"text": "go"})
        await ends.wait(answer["execution_id"])


async def _runs(server: Server, what: str, seconds: float, tell: Tell) -> None:
    async with Ends.listen(server, ["short"]) as ends:

        async def run(_: int, connection: Connection) -> None:
            answer = await connection.post("/workflows/short/execute/", {"text": "go"})
            await ends.wait(answer["execution_id"])

        tell(await drive(f"run, {what}", server, run, clients=8, seconds=seconds))


def _multiply(database: Path, wanted: int) -> None:
    """Copy a finished run with all its rows behind the server's back, every tenth as failed."""
    with closing(sqlite3.connect(database)) as connection:
        (first,) = connection.execute("SELECT id FROM executions LIMIT 1").fetchone()
        columns = [row[1] for row in connection.execute("PRAGMA table_info(executions)")]
        new = {
            "id": "printf('%08x-0000-4000-8000-000000000000', n)",
            "created_seq": "(SELECT max(created_seq) FROM executions) + n",
            "status": "CASE n % 10 WHEN 0 THEN 'failed' ELSE status END",
        }
        values = ", ".join(new.get(column, f'"{column}"') for column in columns)
        numbers = "WITH RECURSIVE k(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k WHERE n < ?)"
        connection.execute(
            f"{numbers} INSERT INTO executions SELECT {values} FROM executions, k WHERE id = ?",
            (wanted, first),
        )
        for table in ("journal", "execution_logs", "execution_events"):
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            kept = [name for name in names if name != "id"]
            copied = ", ".join(
                new["id"] if name == "execution_id" else f'"{name}"' for name in kept
            )
            into = ", ".join(f'"{name}"' for name in kept)
            connection.execute(
                f"{numbers} INSERT INTO {table} ({into}) "
                f"SELECT {copied} FROM {table}, k WHERE execution_id = ?",
                (wanted, first),
            )
        connection.commit()
