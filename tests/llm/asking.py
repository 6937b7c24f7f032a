"""Builders and a recorder shared by the provider tests."""

from typing import Any

import httpx2
import trio

from pipelit.engine.messages import ChatMessage
from pipelit.llm.provider import ProviderCache
from pipelit.llm.types import ModelRequest, ModelResponse, ProviderError, ProviderSpec

DONE = [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]


def message(role: Any, content: Any, **more: Any) -> ChatMessage:
    return ChatMessage(id="m1", role=role, content=content, timestamp="2026-03-02T09:00:00", **more)


def spec(base_url: str, **more: Any) -> ProviderSpec:
    fields = {
        "credential_id": 1,
        "provider_type": "openai_compatible",
        "api_key": "sk-demo-0123456789abcdef",
        "base_url": base_url,
        "max_retries": 0,
    }
    return ProviderSpec(**(fields | more))


def request(*messages: ChatMessage, **more: Any) -> ModelRequest:
    return ModelRequest(
        model="demo-1", messages=messages or (message("user", "What is 12*17?"),), **more
    )


class Asker:
    """Makes a call and remembers what it brought."""

    def __init__(self, http: httpx2.AsyncClient, provider_spec: ProviderSpec) -> None:
        self.cache = ProviderCache(http)
        self.spec = provider_spec
        self.texts: list[str] = []
        self.alive = 0
        self.response: ModelResponse | None = None
        self.error: ProviderError | None = None

    def _count(self) -> None:
        self.alive += 1

    async def ask(
        self, asked: ModelRequest, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> ModelResponse:
        task_status.started()
        self.response = await self.cache.get(self.spec).complete(
            asked, on_text=self.texts.append, on_alive=self._count
        )
        return self.response

    async def try_ask(self, asked: ModelRequest) -> None:
        try:
            await self.ask(asked)
        except ProviderError as error:
            self.error = error
