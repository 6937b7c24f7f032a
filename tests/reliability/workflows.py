"""The workflows of the reliability tests: agents with tools, requests, branches, waits, chat."""

from typing import Any, TypeAlias

from tests.kit.api import Api
from tests.reliability.outside import Outside

Nodes: TypeAlias = dict[str, tuple[str, dict[str, Any]]]

NAP_SECONDS = 6


def _agent(name: str) -> tuple[str, dict[str, Any]]:
    return "agent", {"system_prompt": name}


def _say(message: str) -> tuple[str, dict[str, Any]]:
    return "reply_chat", {"extra_config": {"message": message}}


def _extra(component_type: str, **config: object) -> tuple[str, dict[str, Any]]:
    return component_type, {"extra_config": config}


async def build_all(api: Api, world: Outside) -> None:
    """Build `writers`, `fetchers`, `pairs`, `sleepers` and `talk`."""
    credential = await api.add_model(world.model_url)
    model = "ai_model", {"llm_credential_id": credential, "model_name": "demo-1"}
    start: Nodes = {"start": ("trigger_manual", {})}

    def request(node: str, method: str) -> tuple[str, dict[str, Any]]:
        url = f"{world.web_url}/{{{{ trigger.text }}}}/{node}"
        return _extra("http_request", method=method, url=url, body="x")

    await api.build(
        "writers",
        start
        | {"model": model, "calc": ("calculator", {})}
        | {"first": _agent("first"), "second": _agent("second"), "say": _say("{{second.output}}")},
        "start -> first, first -> second, second -> say, model -> first : llm, "
        "model -> second : llm, calc -> first : tool",
    )
    rules = [
        {"id": way, "field": "fetch.json.route", "operator": "equals", "value": way}
        for way in ("left", "right")
    ]
    await api.build(
        "fetchers",
        start
        | {"fetch": request("fetch", "POST"), "way": _extra("switch", rules=rules)}
        | {"left": request("left", "GET"), "right": request("right", "POST")}
        | {"join": _extra("merge", mode="combine"), "say": _say("{{ join.merged.json.text }}")},
        "start -> fetch, fetch -> way, way -> left = left, way -> right = right, "
        "left -> join, right -> join, join -> say",
    )
    await api.build(
        "pairs",
        start
        | {"model": model, "think": _agent("think"), "look": request("look", "POST")}
        | {"join": _extra("merge", mode="append"), "say": _say("{{ join.merged | length }}")},
        "start -> think, start -> look, model -> think : llm, "
        "think -> join, look -> join, join -> say",
    )
    await api.build(
        "sleepers",
        start | {"nap": _extra("wait", duration=NAP_SECONDS), "say": _say("{{ nap.output }}")},
        "start -> nap, nap -> say",
    )
    await api.build(
        "talk",
        {"chat_in": ("trigger_chat", {}), "model": model}
        | {"think": _agent("think"), "say": _say("{{ think.output }}")},
        "chat_in -> think, model -> think : llm, think -> say",
    )
