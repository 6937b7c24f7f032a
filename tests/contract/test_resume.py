"""Questions of executions and their answers, over HTTP. Contract: beyond.md §3, engine.md §16."""

import re
from typing import Any

import pytest
import trio

from tests.kit.api import Api
from tests.kit.people import refusal
from tests.kit.site import People

pytestmark = pytest.mark.slow

NOT_FOUND = (404, "Execution not found.")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?")


async def build(api: Api, slug: str, on_reject: str = "auto") -> None:
    """Build a workflow that asks before it replies."""
    await api.build(
        slug,
        {
            "start": ("trigger_manual", {}),
            "confirm_pay": (
                "human_confirmation",
                {"extra_config": {"prompt": "Pay {{ trigger.text }}?", "on_reject": on_reject}},
            ),
            "say": (
                "reply_chat",
                {"extra_config": {"message": "{{ confirm_pay.confirmed }}: {{ confirm_pay }}"}},
            ),
        },
        "start -> confirm_pay, confirm_pay -> say",
    )


async def ask(api: Api, slug: str, text: str = "118") -> tuple[str, Any]:
    """Run a workflow until it waits for an answer; return the execution and its detail."""
    execution_id = await api.run(slug, text=text)
    async with api.follow(execution_id) as events:
        async for event in events:
            if event["type"] == "execution_interrupted":
                break
    return execution_id, await api.show(execution_id)


def resume(execution_id: str) -> str:
    return f"/executions/{execution_id}/resume/"


async def test_an_interrupted_execution_shows_its_question(people: People, slug: str) -> None:
    """With every field, in the detail and in the event."""
    await build(people.olga, slug)

    execution_id, detail = await ask(people.olga, slug)

    assert (detail["status"], detail["completed_at"]) == ("interrupted", None)
    (question,) = detail["pending_confirmations"]
    assert question.keys() == {"task_id", "node_id", "prompt", "created_at", "expires_at"}
    assert (question["node_id"], question["prompt"]) == ("confirm_pay", "Pay 118?")
    assert re.fullmatch("[0-9a-f]{8}", question["task_id"])
    assert MOMENT.fullmatch(question["created_at"])
    assert MOMENT.fullmatch(question["expires_at"])
    waiting, interrupted = (await people.olga.events(execution_id))[-2:]
    assert (waiting["data"]["status"], waiting["data"]["task_id"]) == (
        "waiting",
        question["task_id"],
    )
    assert interrupted["data"] == {
        "execution_id": execution_id,
        **{name: question[name] for name in ("node_id", "task_id", "prompt", "expires_at")},
    }
    listed = await people.olga.get(f"/executions/?workflow_slug={slug}&status=interrupted")
    assert [one["execution_id"] for one in listed["items"]] == [execution_id]


@pytest.mark.parametrize("named", [False, True])
async def test_a_yes_goes_on(people: People, slug: str, named: bool) -> None:
    """The answer names its question or not; the response is the execution."""
    await build(people.olga, slug)
    execution_id, detail = await ask(people.olga, slug)
    task_id = detail["pending_confirmations"][0]["task_id"] if named else None

    answer = await people.olga.call(
        "POST", resume(execution_id), {"input": "Yes", "task_id": task_id}
    )
    ended = await people.olga.wait_end(execution_id)

    assert answer.status_code == 200
    assert answer.json().keys() < ended.keys()
    assert answer.json()["execution_id"] == execution_id
    assert ended["status"] == "completed"
    assert ended["pending_confirmations"] == []
    assert ended["final_output"]["output"].startswith("True: ")
    (log,) = [log for log in ended["logs"] if log["node_id"] == "confirm_pay"]
    assert log["output"] == {"confirmed": True, "user_response": "Yes"}


async def test_a_rejection_that_nobody_guards_cancels(people: People, slug: str) -> None:
    """With the reason; the reply never runs."""
    await build(people.olga, slug)
    execution_id, _ = await ask(people.olga, slug)

    await people.olga.post(resume(execution_id), {"input": "over my dead body"})
    ended = await people.olga.wait_end(execution_id)

    assert (ended["status"], ended["error_code"]) == ("cancelled", "ConfirmationRejected")
    assert ended["error_message"] == "Rejected at 'confirm_pay'"
    assert [(log["node_id"], log["status"]) for log in ended["logs"]] == [
        ("start", "success"),
        ("confirm_pay", "success"),
        ("say", "skipped"),
    ]


async def test_a_rejection_goes_on_where_that_is_wanted(people: People, slug: str) -> None:
    """The answer may be empty."""
    await build(people.olga, slug, on_reject="continue")
    execution_id, _ = await ask(people.olga, slug)

    await people.olga.post(resume(execution_id), {"input": ""})
    ended = await people.olga.wait_end(execution_id)

    assert ended["status"] == "completed"
    assert ended["final_output"]["output"].startswith("False: ")


async def test_a_refused_flag_cancels_before_the_response(people: People, slug: str) -> None:
    """The response is the cancelled execution."""
    await people.olga.build(
        slug,
        {"start": ("trigger_manual", {}), "say": ("reply_chat", {})},
        "start -> say",
    )
    nodes = f"/workflows/{slug}/nodes/"
    assert (
        await people.olga.call("PATCH", f"{nodes}say/", {"interrupt_before": True})
    ).status_code == 200
    execution_id, detail = await ask(people.olga, slug)

    answer = await people.olga.post(resume(execution_id), {"input": "no"})

    (question,) = detail["pending_confirmations"]
    assert question["prompt"] == "Confirmation required at node 'say' (before execution)."
    assert (answer["status"], answer["error_message"]) == ("cancelled", "")


async def test_what_cannot_be_answered(people: People, slug: str) -> None:
    """Nothing open, another question, nobody's business, a bad body."""
    await build(people.olga, slug)
    execution_id, detail = await ask(people.olga, slug)
    (question,) = detail["pending_confirmations"]
    body = {"input": "yes", "task_id": question["task_id"]}

    unknown = await people.olga.call("POST", resume("nope"), {"input": "yes"})
    hidden = await people.otto.call("POST", resume(execution_id), {"input": "yes"})
    other = await people.olga.call("POST", resume(execution_id), body | {"task_id": "c41f09ab"})
    bodies = [{}, {"input": None}, {"input": "x" * 4001}]
    malformed = [await people.olga.call("POST", resume(execution_id), one) for one in bodies]
    nobody = await people.anyone.call("POST", resume(execution_id), {"input": "yes"})
    admin = await people.ada.call("POST", resume(execution_id), {"input": "yes"})
    again = await people.olga.call("POST", resume(execution_id), body)
    await people.olga.wait_end(execution_id)
    ended = await people.olga.call("POST", resume(execution_id), {"input": "yes"})

    assert refusal(unknown) == refusal(hidden) == NOT_FOUND
    assert refusal(other) == (409, "Confirmation 'c41f09ab' is not pending.")
    assert [one.status_code for one in malformed] == [422] * 3
    assert nobody.status_code == 401
    assert admin.status_code == 200
    assert refusal(again) == (409, f"Confirmation '{question['task_id']}' is not pending.")
    assert refusal(ended) == (400, "Cannot resume execution with status 'completed'.")


async def test_one_of_two_concurrent_answers_wins(people: People, slug: str) -> None:
    """The other one hears 409 or 400."""
    await build(people.olga, slug, on_reject="continue")
    execution_id, _ = await ask(people.olga, slug)
    statuses: list[int] = []

    async def answer(text: str) -> None:
        said = await people.olga.call("POST", resume(execution_id), {"input": text})
        statuses.append(said.status_code)

    async with trio.open_nursery() as nursery:
        for text in ("yes", "no", "yes", "no"):
            nursery.start_soon(answer, text)
    ended = await people.olga.wait_end(execution_id)

    assert statuses.count(200) == 1
    assert set(statuses) <= {200, 400, 409}
    assert ended["status"] == "completed"


async def test_a_chat_session_goes_on_while_an_earlier_run_waits(people: People, slug: str) -> None:
    """The next message runs at once."""
    await people.olga.build(
        slug,
        {"chat_in": ("trigger_chat", {}), "sure": ("human_confirmation", {})},
        "chat_in -> sure",
    )
    first, second = await people.olga.chat(slug, "one"), await people.olga.chat(slug, "two")

    for execution_id in (first, second):
        await people.olga.wait_for(execution_id, node_id="sure", status="waiting")

    await people.olga.post(f"/executions/{first}/cancel/")
    cancelled = await people.olga.show(first)
    assert (cancelled["status"], cancelled["pending_confirmations"]) == ("cancelled", [])
