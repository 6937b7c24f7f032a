"""Write the revision that brings the newest migration to today's schema.

Usage: python ops/new_revision.py 0002 "Give workflows a colour"

The result is a draft: read, format and test it before it is committed.
"""

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config

from pipelit.store.database import Purpose, open_engine, parse_database_url
from pipelit.store.migrate import SCRIPTS, Migrations


def main(revision: str, message: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        url = parse_database_url(f"sqlite:///{Path(directory) / 'db.sqlite3'}")
        engine = open_engine(url, Purpose.MIGRATE)
        migrations = Migrations()
        if migrations.newest:
            migrations.upgrade(engine)
        config = Config()
        config.set_main_option("script_location", str(SCRIPTS))
        config.set_main_option("path_separator", "os")
        config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.revision(config, message, autogenerate=True, rev_id=revision)
        engine.dispose()
    (path,) = (SCRIPTS / "versions").glob(f"{revision}_*.py")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "# ###" not in line))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
