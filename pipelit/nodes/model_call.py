"""One call of a model: the conversation made fit for it, the answer, and what it cost.

Every AI node calls models through here. Contract: engine.md §21.4, §24, §25.1, §25.2.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec
import trio

from pipelit.engine.budget import Estimate
from pipelit.engine.context import count_tokens, trim
from pipelit.engine.messages import ChatMessage, MessageUsage, sanitise
from pipelit.engine.outcome import Usage, Warning_
from pipelit.engine.wire import USAGE_MISSING
from pipelit.llm.types import ContextOverflow, ModelRequest, ModelResponse, ToolSpec
from pipelit.nodes.agent_model import Model
from pipelit.nodes.base import RunPort

MAX_COST_MICROS = 2**53
"""No call costs more: tokens that a provider only claims would overflow the sums."""

OnSpent: TypeAlias = Callable[[Usage, tuple[Warning_, ...]], None]
"""(what the call used, what was odd about it); called once for each call, however it ends."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is asked. The conversation may be as it was stored."""

    system: tuple[ChatMessage, ...]
    conversation: Sequence[ChatMessage]
    tools: tuple[ToolSpec, ...] = ()


async def call_model(
    model: Model,
    prompt: Prompt,
    port: RunPort,
    *,
    on_spent: OnSpent,
    on_text: Callable[[str], None] | None = None,
) -> ModelResponse:
    """Call *model* once and return its complete answer.

    Tokens are only estimated: a provider that finds the prompt too long after all is asked once
    more, with half of the conversation.

    Args:
        on_text: gets each piece of the answer as it comes; None for answers nobody watches.

    Raises:
        ProviderError: the provider refused, failed or broke off. The call is counted all the same.
        NodeError: the budget does not allow the call; it was not made.
    """
    conversation = _fit(model, prompt)

    async def ask() -> ModelResponse:
        request = model.request((*prompt.system, *conversation), prompt.tools)
        return await _call(model, request, port, on_spent=on_spent, on_text=on_text or _ignore)

    try:
        return await ask()
    except ContextOverflow:
        half = trim(conversation, sum(map(count_tokens, conversation)) // 2)
        if half == conversation or (len(half) == 1 and not half[0].text):
            raise
        conversation = half
    return await ask()


async def _call(
    model: Model,
    request: ModelRequest,
    port: RunPort,
    *,
    on_spent: OnSpent,
    on_text: Callable[[str], None],
) -> ModelResponse:
    """Send a request that the budget allows, and count it."""
    reservation = await port.purse.reserve(_estimate(model, request), port.alive)
    usage: MessageUsage | None = None
    outcome, began = "cancelled", trio.current_time()
    try:
        response = await model.provider.complete(request, on_text=on_text, on_alive=port.alive)
        usage, outcome = response.usage, "success"
    except Exception:
        outcome = "failed"
        raise
    finally:
        spent, warnings = _spent(model, usage)
        model.on_call(model.spec, model.name, outcome, spent, trio.current_time() - began)
        port.purse.settle(reservation, spent)
        on_spent(spent, warnings)
    return response


def _estimate(model: Model, request: ModelRequest) -> Estimate:
    """Return what a call may use: its prompt, and the longest answer."""
    prompt = sum(map(count_tokens, request.messages))
    micros = None if model.price is None else model.price(prompt, model.answer_reserve)
    return Estimate(
        model=model.name,
        tokens=prompt + model.answer_reserve,
        micros=None if micros is None else min(micros, MAX_COST_MICROS),
    )


def _fit(model: Model, prompt: Prompt) -> tuple[ChatMessage, ...]:
    """Return the conversation as it is sent: nothing a provider refuses, nothing too much."""
    clean = tuple(m for m in map(sanitise, prompt.conversation) if m is not None)
    if not prompt.tools:
        clean = tuple(m for m in clean if m.role != "tool" and not m.tool_calls)
    room = model.prompt_budget
    return trim(clean, room - sum(map(count_tokens, prompt.system))) if room > 0 else clean


def _spent(model: Model, usage: MessageUsage | None) -> tuple[Usage, tuple[Warning_, ...]]:
    if usage is None:
        return Usage(llm_calls=1), (USAGE_MISSING,)
    spent = Usage(
        llm_calls=1,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
    )
    if model.price is None:
        message = f"No price known for model '{model.name}'."
        return spent, ({"code": "price_unknown", "message": message},)
    cost = min(model.price(usage.input_tokens, usage.output_tokens), MAX_COST_MICROS)
    return msgspec.structs.replace(spent, cost_micros=cost), ()


def _ignore(_text: str) -> None:
    """Nobody watches this answer being written."""
