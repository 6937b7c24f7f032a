"""Failures that are handled: by nodes, error triggers, error workflows. engine.md §17."""

from typing import Any

import pytest
import trio

from tests.kit.api import Api
from tests.kit.site import People

pytestmark = pytest.mark.slow

NAP = ("wait", {"extra_config": {"duration": "soon"}})
WHY = "Wait duration must be a number"


def say(message: str) -> tuple[str, dict[str, Any]]:
    return "reply_chat", {"extra_config": {"message": message}}


async def fail(api: Api, slug: str) -> Any:
    detail = await api.wait_end(await api.run(slug, text="go"))
    assert detail["status"] == "failed"
    return detail


async def wait_others(api: Api, slug: str, known: str, count: int = 1) -> list[Any]:
    """Wait until so many executions of a workflow, other than a known one, have ended."""
    with trio.fail_after(20):
        while True:
            listed = (await api.get(f"/executions/?workflow_slug={slug}"))["items"]
            ids = [one["execution_id"] for one in listed if one["execution_id"] != known]
            if len(ids) >= count:
                return [await api.wait_end(one) for one in reversed(ids)]
            await trio.sleep(0.02)


async def test_an_error_handler_says_what_failed(people: People, slug: str) -> None:
    """The execution is completed, the failed node stays failed."""
    await people.olga.build(
        slug,
        {
            "start": ("trigger_manual", {}),
            "nap": NAP,
            "sorry": ("error_handler", {}),
            "say": say("{{ sorry.failed_node }}: {{ sorry.message }}"),
        },
        "start -> nap, nap -> sorry, sorry -> say",
    )

    detail = await people.olga.wait_end(await people.olga.run(slug))

    assert detail["status"] == "completed"
    assert detail["final_output"] == {"output": f"nap: {WHY}"}
    statuses = {log["node_id"]: log["status"] for log in detail["logs"]}
    assert statuses == {"start": "success", "nap": "failed", "sorry": "success", "say": "success"}
    (log,) = [log for log in detail["logs"] if log["node_id"] == "sorry"]
    error = log["output"]["error"]
    assert log["output"] == {
        "error": error,
        "message": WHY,
        "error_code": "ConfigError",
        "failed_node": "nap",
    }
    del error["timestamp"]
    assert error == {
        "message": WHY,
        "error_code": "ConfigError",
        "source_node_id": "nap",
        "source_node_type": "wait",
        "execution_id": detail["execution_id"],
        "workflow_slug": slug,
        "stack_trace": "",
        "attempts": 1,
        "others": [],
    }


async def test_an_error_trigger_starts_a_run_of_its_own(people: People, slug: str) -> None:
    """With what failed; the failed one stays failed, and the new one starts no other."""
    await people.olga.build(
        slug,
        {
            "start": ("trigger_manual", {}),
            "nap": NAP,
            "oops": ("trigger_error", {}),
            "say": say("{{ trigger.error.source_node_id }}! {{ trigger.text }}"),
        },
        "start -> nap, oops -> say",
    )
    failed = await fail(people.olga, slug)

    (handled,) = await wait_others(people.olga, slug, failed["execution_id"])

    assert handled["status"] == "completed"
    assert handled["final_output"] == {"output": f"nap! Error in node nap: {WHY}"}
    error = handled["trigger_payload"]["error"]
    assert error.pop("timestamp") == failed["completed_at"]
    assert error == {
        "message": WHY,
        "error_code": "ConfigError",
        "source_node_id": "nap",
        "source_node_type": "wait",
        "execution_id": failed["execution_id"],
        "workflow_slug": slug,
        "stack_trace": "",
    }


async def test_handlers_that_fail_start_nothing(people: People, slug: str) -> None:
    """And neither does a cancelled execution."""
    await people.olga.build(
        slug,
        {
            "start": ("trigger_manual", {}),
            "nap": NAP,
            "long": ("wait", {"extra_config": {"duration": 500}}),
            "other": ("trigger_manual", {}),
            "oops": ("trigger_error", {}),
        },
        "start -> nap, oops -> nap, other -> long",
    )
    failed = await fail(people.olga, slug)
    (handler,) = await wait_others(people.olga, slug, failed["execution_id"])
    body = {"trigger_node_id": "other"}
    started = await people.olga.post(f"/workflows/{slug}/execute/", body)
    await people.olga.post(f"/executions/{started['execution_id']}/cancel/")
    again = await fail(people.olga, slug)
    # Failures are handled in order: by now the earlier ones would have been.
    await wait_others(people.olga, slug, again["execution_id"], count=4)

    assert handler["status"] == "failed"
    listed = await people.olga.get(f"/executions/?workflow_slug={slug}")
    assert listed["total"] == 5
    assert (await people.olga.get(f"/executions/?workflow_slug={slug}&status=failed"))["total"] == 4


async def test_an_error_workflow_handles_the_failures_of_others(people: People, slug: str) -> None:
    """Its best trigger fires, or its entry node runs without one."""
    for name, trigger in (("h1", "trigger_error"), ("h2", "trigger_manual"), ("h3", None)):
        nodes = {"in": (trigger, {})} if trigger else {}
        handler = await people.olga.build(
            f"{slug}-{name}",
            {**nodes, "say": say("{{ trigger.error.workflow_slug }}")},
            "in -> say" if trigger else "",
        )
        await people.olga.build(
            f"{slug}-of-{name}",
            {"start": ("trigger_manual", {}), "nap": NAP},
            "start -> nap",
            error_handler_workflow_id=handler["id"],
        )

        await fail(people.olga, f"{slug}-of-{name}")
        (handled,) = await wait_others(people.olga, f"{slug}-{name}", "")

        assert handled["final_output"] == {"output": f"{slug}-of-{name}"}
