"""What mypy must say about actors: read by `test_typing.py`, never run.

A line with `# error: CODE` must be an error with that code; every other line must be clean.
"""

from functools import partial
from typing import TypeAlias, assert_never, assert_type

from pipelit.actors.runtime import (
    Actor,
    ActorRef,
    ChildSpec,
    Exit,
    Family,
    FamilySpec,
    Message,
    Request,
    SupervisorSpec,
    System,
)


class Post(Request[str], frozen=True):
    """A user's message. Reply: id of the execution."""

    text: str


class History(Request[tuple[int, ...]], frozen=True):
    """Reply: the last turns."""

    limit: int = 10


class RunEnded(Message, frozen=True):
    """A watched execution has ended."""

    execution_id: str
    exit: Exit


class Foreign(Message, frozen=True):
    """Belongs to nobody's protocol here."""


ChatMessage: TypeAlias = Post | History | RunEnded


class Chat(Actor[ChatMessage]):
    async def receive(self, message: ChatMessage) -> None:
        match message:
            case Post(text=text):
                self.reply(message, text)
            case History():
                pending = self.defer(message)
                pending.send((1, 2))
            case RunEnded():
                self.ctx.post(History())
            case _:
                assert_never(message)


class Mistaken(Actor[ChatMessage]):
    async def receive(self, message: ChatMessage) -> None:
        match message:
            case Post():
                self.reply(message, 3)  # error: misc
                self.defer(message).send(3)  # error: arg-type
                self.ctx.post(Foreign())  # error: arg-type
                self.ctx.after(1, Foreign())  # error: arg-type
                self.ctx.start_soon(self._own, 3)  # error: arg-type
            case History():
                self.reply(message, ("a",))  # error: misc
            case _:
                assert_never(message)  # error: arg-type

    async def _own(self, text: str) -> None:
        """An own task."""


async def use(ref: ActorRef[ChatMessage], family: Family[ChatMessage], system: System) -> None:
    assert_type(await ref.ask(Post("hello")), str)
    assert_type(await family.ref("3:12").ask(History()), tuple[int, ...])
    wider: str | None = await ref.ask(Post("hello"))
    print(wider, await ref.ask(Post("hello")))
    ref.tell(Post("hello"))
    narrower: ActorRef[Post] = ref
    narrower.tell(Post("hello"))
    number: int = await ref.ask(Post("hello"))  # error: arg-type
    print(number)
    ref.tell(Foreign())  # error: arg-type
    wrong: ActorRef[ChatMessage | Foreign] = ref  # error: assignment
    print(wrong)
    started = system.start_child("/", ChildSpec(id="a", kind="chat", start=Chat))
    assert_type(started, ActorRef[ChatMessage])


def watch(chat: Chat, ref: ActorRef[ChatMessage]) -> None:
    chat.ctx.watch(ref, partial(RunEnded, "7"))
    chat.ctx.watch(ref, make_foreign)  # error: arg-type


def make_foreign(_exit: Exit) -> Foreign:
    return Foreign()


def make_chat(_key: str) -> Chat:
    return Chat()


TREE = SupervisorSpec(
    id="root",
    children=(
        ChildSpec(id="one", kind="chat", start=Chat),
        SupervisorSpec(id="group"),
        FamilySpec(id="chats", kind="chat", start=make_chat),
        ChildSpec(id="two", kind="chat", start=make_chat),  # error: arg-type
    ),
)
