"""Credentials below HTTP: rights, what lies in the database, what the engine gets."""

from functools import partial

import pytest
import trio
from sqlalchemy import insert, select

from pipelit.errors import Forbidden, Invalid, NotFound
from pipelit.llm.types import ProviderSpec
from pipelit.services.credentials import CredentialsService, CredentialTest, NoProvider
from pipelit.services.principal import Principal
from pipelit.store import Store
from pipelit.store.queries.credentials import find_credential
from pipelit.store.schema import credentials as table
from pipelit.store.schema import nodes, users, workflows
from tests.kit.accounts import FakeProviders
from tests.services.conftest import HandClock

KEY = "sk-demo-0123456789abcdef"
TOKEN = "t-1234-and-some-more"  # not a secret of anybody's
DETAIL = {
    "api_key": KEY,
    "base_url": "https://api.example.com/v1",
    "custom_headers": {"X-Token": TOKEN, "X-Team": "ops"},
}

ADMIN = Principal(user_id=1, username="ada", role="admin", key_id=1)
OWNER = Principal(user_id=2, username="olga", role="normal", key_id=2)
OTHER = Principal(user_id=3, username="otto", role="normal", key_id=3)
AGENT = Principal(user_id=4, username="agent", role="normal", key_id=4, is_agent=True, acts_for=2)


@pytest.fixture
async def people(store: Store, clock: HandClock) -> None:
    rows = [
        {"id": p.user_id, "username": p.username, "created_at": clock.now()}
        for p in (ADMIN, OWNER, OTHER, AGENT)
    ]
    await store.write(lambda conn: conn.execute(insert(users), rows).rowcount)


@pytest.fixture
def credentials(credentials: CredentialsService, people: None) -> CredentialsService:
    return credentials


@pytest.fixture
async def owned(credentials: CredentialsService) -> int:
    created = await credentials.create(OWNER, name="C", credential_type="llm", detail=DETAIL)
    return created.id


async def test_secrets_lie_encrypted_in_the_database(store: Store, owned: int) -> None:
    """Neither the key nor any value of the headers is readable in the row."""
    row = await store.read(lambda conn: str(conn.execute(select(table)).mappings().one()))

    assert "https://api.example.com/v1" in row
    assert KEY not in row
    assert TOKEN not in row


async def test_what_is_shown_holds_no_secret(credentials: CredentialsService, owned: int) -> None:
    """List, single and change show masks."""
    page, _ = await credentials.browse(limit=50, offset=0)
    shown = [*page, await credentials.get(owned)]
    shown.append(await credentials.change(OWNER, owned, name="D"))

    assert KEY not in repr(shown)
    assert TOKEN not in repr(shown)
    assert {item.detail["api_key"] for item in shown} == {"sk-d****cdef"}


async def test_the_engine_gets_the_clear_key(credentials: CredentialsService, owned: int) -> None:
    """A provider spec is the credential decrypted."""
    assert await credentials.provider_spec(owned) == ProviderSpec(
        credential_id=owned,
        provider_type="openai_compatible",
        api_key=KEY,
        base_url="https://api.example.com/v1",
        custom_headers={"X-Token": TOKEN, "X-Team": "ops"},
    )


async def test_the_engine_learns_why_there_is_no_provider(credentials: CredentialsService) -> None:
    """A missing credential and one of another type are told apart."""
    git = await credentials.create(OWNER, name="G", credential_type="git", detail={})

    assert await credentials.provider_spec(99) is NoProvider.MISSING
    assert await credentials.provider_spec(git.id) is NoProvider.NOT_LLM


@pytest.mark.parametrize("principal", [OWNER, ADMIN, AGENT])
async def test_creator_agents_of_the_creator_and_admins_may_change(
    credentials: CredentialsService, owned: int, principal: Principal
) -> None:
    """They rename and delete it."""
    assert (await credentials.change(principal, owned, name="New")).name == "New"

    await credentials.delete(principal, owned)

    with pytest.raises(NotFound):
        await credentials.get(owned)


async def test_others_may_see_but_not_change(credentials: CredentialsService, owned: int) -> None:
    """Even a change that changes nothing is refused, with the contract's text."""
    text = r"^Only the creator or an admin can modify this credential\.$"

    with pytest.raises(Forbidden, match=text):
        await credentials.change(OTHER, owned)
    with pytest.raises(Forbidden, match=text):
        await credentials.delete(OTHER, owned)
    await credentials.delete_many(OTHER, [owned])

    assert (await credentials.get(owned)).id == owned


async def test_nothing_sent_changes_nothing(
    credentials: CredentialsService, owned: int, clock: HandClock
) -> None:
    """An empty change, and an empty detail, leave even `updated_at`."""
    before = await credentials.get(owned)
    clock.advance(5)

    assert await credentials.change(OWNER, owned) == before
    assert await credentials.change(OWNER, owned, detail={}) == before


async def test_the_mask_sent_back_is_a_change_that_keeps_the_key(
    credentials: CredentialsService, owned: int, clock: HandClock
) -> None:
    """Fields named with their present values move `updated_at` and nothing else."""
    before = await credentials.get(owned)
    clock.advance(5)

    after = await credentials.change(OWNER, owned, detail=before.detail)

    assert after.detail == before.detail
    assert after.updated_at == clock.now()
    assert after.created_at == before.created_at
    spec = await credentials.provider_spec(owned)
    assert isinstance(spec, ProviderSpec)
    assert (spec.api_key, spec.custom_headers["X-Token"]) == (KEY, TOKEN)


@pytest.mark.parametrize(("principal", "key"), [(OWNER, KEY), (ADMIN, ""), (AGENT, "")])
async def test_only_the_creator_points_the_key_elsewhere(
    credentials: CredentialsService, owned: int, principal: Principal, key: str
) -> None:
    """For anybody else the stored key is cleared when the host changes."""
    await credentials.change(principal, owned, detail={"base_url": "https://evil.example.com"})

    spec = await credentials.provider_spec(owned)
    assert isinstance(spec, ProviderSpec)
    assert spec.api_key == key


async def test_a_wrong_field_changes_nothing(credentials: CredentialsService, owned: int) -> None:
    """All problems are named at once, at their place in the body."""
    with pytest.raises(Invalid) as refusal:
        await credentials.change(
            OWNER, owned, name="New", detail={"api_key": 1, "custom_headers": {"A": 2}}
        )

    assert refusal.value.problems == (
        "body.detail.api_key: must be a string",
        "body.detail.custom_headers.A: must be a string",
    )
    assert (await credentials.get(owned)).name == "C"


async def test_changes_at_once_all_count(
    credentials: CredentialsService, owned: int, clock: HandClock
) -> None:
    """Changes of different fields sent together do not undo each other."""
    async with trio.open_nursery() as nursery:
        for detail in ({"organization_id": "org"}, {"api_key": "new-key-0123456789"}, None):
            change = partial(credentials.change, name="New" if detail is None else None)
            nursery.start_soon(partial(change, OWNER, owned, detail=detail))

    shown = await credentials.get(owned)
    assert shown.name == "New"
    assert shown.detail["organization_id"] == "org"
    assert shown.detail["api_key"] == "new-****6789"


async def test_deleting_takes_the_reference_out_of_nodes(
    credentials: CredentialsService, store: Store, owned: int, clock: HandClock
) -> None:
    """The node stays, its credential is null, and the workflow counts as changed."""
    now = clock.now()
    flow = {"owner_id": 2, "name": "F", "created_at": now, "updated_at": now}
    node = {
        "node_id": "m", "component_type": "ai_model", "config": {}, "updated_at": now,
        "workflow_id": 1, "llm_credential_id": owned,
    }  # fmt: skip
    await store.write(
        lambda conn: conn.execute(insert(workflows), [{**flow, "slug": s} for s in "ab"]).rowcount
    )
    await store.write(lambda conn: conn.execute(insert(nodes).values(**node)).rowcount)

    await credentials.delete(OWNER, owned)

    left = await store.read(lambda conn: conn.execute(select(nodes)).mappings().one())
    versions = await store.read(
        lambda conn: list(conn.scalars(select(workflows.c.version).order_by(workflows.c.id)))
    )
    assert left["llm_credential_id"] is None
    assert versions == [1, 0]


async def test_a_batch_deletes_what_it_may(credentials: CredentialsService, owned: int) -> None:
    """Unknown ids and other people's credentials are skipped."""
    mine = await credentials.create(OTHER, name="M", credential_type="tool", detail={})

    await credentials.delete_many(OTHER, [mine.id, owned, 99, -(2**63), 2**63 - 1])
    await credentials.delete_many(OTHER, [])

    assert [item.id for item in (await credentials.browse(limit=9, offset=0))[0]] == [owned]


async def test_a_test_asks_the_provider_and_stores_nothing(
    credentials: CredentialsService, providers: FakeProviders, owned: int, store: Store
) -> None:
    """What the provider says is the answer; the row stays as it was."""
    before = await store.read(partial(find_credential, credential_id=owned))

    assert await credentials.test(owned) == CredentialTest(ok=True, error="")
    providers.error = "Could not connect to the provider"
    assert await credentials.test(owned) == CredentialTest(ok=False, error=providers.error)

    assert [spec.api_key for spec in providers.asked] == [KEY, KEY]
    assert await store.read(partial(find_credential, credential_id=owned)) == before


async def test_only_llm_credentials_are_tried(credentials: CredentialsService) -> None:
    """An unknown id and another type answer alike."""
    git = await credentials.create(OWNER, name="G", credential_type="git", detail={})

    for credential_id in (git.id, 99):
        with pytest.raises(NotFound, match=r"^LLM credential not found\.$"):
            await credentials.test(credential_id)
        with pytest.raises(NotFound, match=r"^LLM credential not found\.$"):
            await credentials.list_models(credential_id)
