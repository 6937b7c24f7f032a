"""One server process for all contract tests of a worker, with an admin and two normal users.

Import the fixtures where they are wanted: `from tests.kit.site import people, site, slug`. Tests
share the server, so each works in a workflow of its own, named by `slug`.
"""

import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import httpx2
import msgspec
import pytest
from sqlalchemy import Connection, insert, select

from pipelit.clock import Clock
from pipelit.services.api_keys import describe_key
from pipelit.store import schema
from pipelit.store.database import Purpose, open_engine, parse_database_url
from pipelit.store.queries.keys import insert_key
from tests.kit.api import Api, http_client
from tests.kit.model_server import ModelServer, model_server
from tests.kit.server_process import ServerProcess, free_port


@dataclass(frozen=True)
class Site:
    """A running server and the keys of its users."""

    server: ServerProcess
    ada: str
    olga: str
    otto: str

    @property
    def url(self) -> str:
        return self.server.url

    def add_key(self, username: str, key: str, expires_at: datetime) -> None:
        """Give a user a key that expires, behind the server's back."""
        with writing(self.server) as connection:
            users = schema.users
            user_id = connection.scalar(select(users.c.id).where(users.c.username == username))
            now = Clock().now()
            new = describe_key(key, name="test", created_at=now)
            new = msgspec.structs.replace(new, expires_at=expires_at)
            insert_key(connection, cast("int", user_id), new)


@dataclass(frozen=True)
class People:
    """Who calls. Ada is the admin, Olga and Otto are not."""

    ada: Api
    olga: Api
    otto: Api
    anyone: Api


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server of this worker's contract tests."""
    with run_site(ServerProcess(tmp_path_factory.mktemp("site"), free_port())) as running:
        yield running


@contextmanager
def run_site(server: ServerProcess) -> Iterator[Site]:
    """Run a server of a module's own, in which the three people exist."""
    with server.log.open("wb") as log:
        process = subprocess.Popen(
            server.command(), stdout=log, stderr=subprocess.PIPE, env=server.environment()
        )
    try:
        assert process.stderr is not None
        said = process.stderr.readlines(1)
        while not said[-1].startswith(b"Pipelit is ready"):
            said += process.stderr.readlines(1) or pytest.fail(b"".join(said).decode())
        body = {"username": "ada", "password": "correct horse battery"}
        answer = httpx2.post(f"{server.url}/api/v1/auth/setup/", json=body, trust_env=False)
        _add_people(server, "olga", "otto")
        yield Site(server, answer.json()["key"], "olga-s-key", "otto-s-key")
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _add_people(server: ServerProcess, *names: str) -> None:
    """Add normal users behind the server's back: no route does yet."""
    with writing(server) as connection:
        for name in names:
            _add_user(connection, name)


@contextmanager
def writing(server: ServerProcess) -> Iterator[Connection]:
    """Write into the server's database, behind its back."""
    url = parse_database_url(f"sqlite:///{server.data / 'db.sqlite3'}")
    engine = open_engine(url, Purpose.MIGRATE)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def _add_user(connection: Connection, name: str) -> None:
    now = Clock().now()
    statement = insert(schema.users).values(username=name, created_at=now)
    user_id = connection.execute(statement.returning(schema.users.c.id)).scalar_one()
    insert_key(connection, user_id, describe_key(f"{name}-s-key", name="test", created_at=now))


@pytest.fixture
async def people(site: Site) -> AsyncIterator[People]:
    """The users, over one HTTP client."""
    async with http_client(site.url) as http:
        yield People(
            ada=Api(http, site.ada),
            olga=Api(http, site.olga),
            otto=Api(http, site.otto),
            anyone=Api(http),
        )


@pytest.fixture
def slug(request: pytest.FixtureRequest) -> str:
    """A slug that is this test's alone."""
    name = f"{request.node.module.__name__.rpartition('_')[2]}-{request.node.name}"
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


@pytest.fixture
async def provider() -> AsyncIterator[ModelServer]:
    """A model provider that leaves every call to the test."""
    async with model_server() as running:
        yield running


async def build_echo(api: Api, slug: str, **more: object) -> None:
    """Build a workflow that answers what it is asked, by chat and by hand."""
    await api.build(
        slug,
        {
            "chat_in": ("trigger_chat", {}),
            "start": ("trigger_manual", {}),
            "say": ("reply_chat", {"extra_config": {"message": "{{ trigger.text }}"}}),
        },
        "chat_in -> say, start -> say",
        **more,
    )


async def build_thinker(api: Api, slug: str, provider: ModelServer, **more: object) -> None:
    """Build a workflow whose agent asks *provider*, by chat and by hand."""
    credential = await api.add_model(provider.url)
    await api.build(
        slug,
        {
            "chat_in": ("trigger_chat", {}),
            "start": ("trigger_manual", {}),
            "model": ("ai_model", {"llm_credential_id": credential, "model_name": "demo-1"}),
            "thinker": ("agent", {"system_prompt": "Think."}),
        },
        "chat_in -> thinker, start -> thinker, model -> thinker : llm",
        **more,
    )
