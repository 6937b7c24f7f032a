"""Asks the model of a node that wants one answer, not a conversation: categorizer, extractor.

Contract: node-types.md §5.3, §5.5, engine.md §8.4, §21.7, §25.1.
"""

from collections.abc import Sequence
from typing import Any

from pipelit.clock import format_instant
from pipelit.engine.messages import ChatMessage, Role, parse_message
from pipelit.engine.outcome import Report, Usage, Warning_
from pipelit.nodes.agent_model import Model, ModelParts, resolve_model
from pipelit.nodes.base import NodeCall, RunPort
from pipelit.nodes.model_call import Prompt, call_model

NO_MESSAGE = "(no message)"
_MAX_LOGGED = 4000


class Questioner:
    """The model calls of one attempt, and the report about them. Made by `open_questioner`."""

    def __init__(self, call: NodeCall, port: RunPort, model: Model) -> None:
        self._call = call
        self._port = port
        self._model = model
        self._usage = Usage()
        self._warnings: tuple[Warning_, ...] = model.warnings
        self.question = question_of(call)

    async def ask(self, system: str, conversation: Sequence[ChatMessage]) -> str:
        """Return the text of the model's answer; nobody watches it being written.

        Raises:
            ProviderError: the model gave none.
        """
        self._port.note(self.report())
        timestamp = self._now()
        response = await call_model(
            self._model,
            Prompt(
                system=self._model.system_messages(system, timestamp), conversation=conversation
            ),
            self._port,
            on_spent=self._count,
        )
        return response.text

    def message(self, role: Role, text: str) -> ChatMessage:
        """Return a message for `ask`."""
        message_id = self._call.services.ids.hex(12)
        return ChatMessage(id=message_id, role=role, content=text, timestamp=self._now())

    def warn(self, *warnings: Warning_) -> None:
        """Add to the warnings of the report."""
        self._warnings = (*self._warnings, *(w for w in warnings if w not in self._warnings))

    def report(self) -> Report:
        """Say what was asked and used so far."""
        model = self._call.attached.model
        return Report(
            usage=self._usage,
            model=(model.config.get("model_name") or None) if model is not None else None,
            input=self._log_input(),
            warnings=self._warnings,
        )

    def _count(self, spent: Usage, warnings: tuple[Warning_, ...]) -> None:
        self._usage += spent
        self.warn(*warnings)
        self._port.note(self.report())

    def _log_input(self) -> dict[str, str]:
        said = {"system_prompt": self._call.config.get("system_prompt") or ""}
        if self._call.extra.get("input_template"):
            said["input_template"] = self.question
        else:
            messages = map(parse_message, self._call.state["messages"])
            users = [message.text for message in messages if message.role == "user"]
            said["text"] = users[-1] if users else ""
        return {key: text[:_MAX_LOGGED] for key, text in said.items() if text}

    def _now(self) -> str:
        return format_instant(self._call.services.clock.now())


async def open_questioner(call: NodeCall, parts: ModelParts) -> Questioner:
    """Find the model of *call* and get ready to ask it.

    Raises:
        NodeError: `ConfigError`, with what is missing.
    """
    if call.run is None:
        raise TypeError("a node with a model runs only inside an execution")
    return Questioner(call, call.run, await resolve_model(call, parts))


def question_of(call: NodeCall) -> str:
    """Return the text a classifier looks at: its rendered template or the last message."""
    template = call.extra.get("input_template")
    if template:
        return str(template)
    messages: list[Any] = call.state["messages"]
    return (parse_message(messages[-1]).text if messages else "") or NO_MESSAGE
