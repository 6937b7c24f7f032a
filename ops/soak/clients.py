"""Random clients of a server: people who start, watch, answer, cancel and retry.

They behave as the contract asks of clients: a start that got no answer is repeated with the same
`Idempotency-Key`, a subscription that broke off goes on after the last event it had.
"""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import trio

from ops.soak.door import Answer, ConnectionLost, Door, Socket, SocketClosed
from ops.soak.history import TERMINAL, Answered, Heard, Seen, Start
from ops.soak.workflows import Draft

TRIES = 40
LISTEN_SECONDS = 2000.0


class Notes:
    """What all clients of a run have seen."""

    def __init__(self) -> None:
        self.starts: dict[str, list[str]] = {}
        self.seen: list[Seen] = []
        self.heard: list[Heard] = []
        self.answered: list[Answered] = []
        self.cancelled: list[str] = []
        self.faults: list[str] = []
        self.executions: list[str] = []

    def see(self, execution: dict[str, Any], how: str) -> None:
        """Note how an answer showed an execution."""
        self.seen.append(
            Seen(
                execution_id=execution["execution_id"],
                status=execution["status"],
                completed_at=execution["completed_at"],
                how=how,
            )
        )

    def all_starts(self) -> tuple[Start, ...]:
        """Return the starts as the auditor wants them."""
        return tuple(Start(mark=mark, accepted=tuple(ids)) for mark, ids in self.starts.items())


class Caller:
    """Sends requests, again after a lost connection where that is safe."""

    def __init__(self, door: Door, key: str, notes: Notes) -> None:
        self._door = door
        self._key = key
        self._notes = notes

    async def once(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send one request.

        Raises:
            ConnectionLost: nobody knows what became of it.
        """
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self._door.request(
            method, f"/api/v1{path}", body, key=self._key, headers=sent
        )
        if answer.status == 500:
            self._notes.faults.append(f"{method} {path} was answered with 500")
        return answer

    async def surely(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send a request until it is answered by a server that takes work; at most `TRIES` times.

        Raises:
            ConnectionLost: no server came up in all that time.
        """
        for attempt in range(TRIES):
            try:
                answer = await self.once(method, path, body, **headers)
            except ConnectionLost:
                await trio.sleep(min(30, 2**attempt))
                continue
            if answer.status not in {500, 503}:
                return answer
            await trio.sleep(2)
        raise ConnectionLost

    async def build(self, draft: Draft, **settings: object) -> int:
        """Build a workflow and return its id. Edges whose types do not fit are left out."""
        body = {"name": draft.slug, "slug": draft.slug, **draft.settings, **settings}
        workflow = (await self.surely("POST", "/workflows/", body)).json
        for node in draft.nodes:
            fields = {name: getattr(node, name) for name in node.__struct_fields__}
            await self.surely("POST", f"/workflows/{draft.slug}/nodes/", fields)
        for edge in draft.edges:
            fields = {name: getattr(edge, name) for name in edge.__struct_fields__}
            await self.surely("POST", f"/workflows/{draft.slug}/edges/", fields)
        return int(workflow["id"])

    async def socket(self) -> Socket:
        """Open a WebSocket."""
        return await self._door.socket(self._key)


class Person:
    """One user of the server, in a loop of random actions."""

    def __init__(
        self, name: str, draw: Random, caller: Caller, notes: Notes, drafts: tuple[Draft, ...]
    ) -> None:
        self._name = name
        self._draw = draw
        self._caller = caller
        self._notes = notes
        self._drafts = drafts
        self._count = 0

    async def live(self, actions: int, nursery: trio.Nursery) -> None:
        """Do so many things; what is watched goes on in *nursery*."""
        deeds: tuple[Callable[[trio.Nursery], Awaitable[None]], ...]
        deeds = (self._start, self._start, self._look, self._answer, self._cancel, self._retry)
        for _ in range(actions):
            await trio.sleep(self._draw.expovariate(1 / 8))
            try:
                with trio.move_on_after(self._draw.choice((0.5, 60.0, 60.0, 60.0))):
                    await self._draw.choice(deeds)(nursery)
            except ConnectionLost:
                continue  # a person gives up, too; what was accepted is noted before

    async def _start(self, nursery: trio.Nursery) -> None:
        draw, self._count = self._draw, self._count + 1
        mark = f"{self._name}-{self._count}-{draw.choice(('w1', 'w2', 'w3', 'none'))}"
        slug = draw.choice(self._drafts).slug
        path, body = draw.choice(
            (
                (f"/workflows/{slug}/chat/", {"text": mark}),
                (f"/workflows/{slug}/execute/", {"text": mark}),
                (f"/webhooks/{slug}", {"text": mark}),
            )
        )
        self._notes.starts[mark] = []
        times = 2 if draw.random() < 0.2 else 1
        for _ in range(times):
            answer = await self._caller.surely("POST", path, body, idempotency_key=f"key {mark}")
            if answer.is_good:
                self._accept(mark, answer.json["execution_id"])
                if draw.random() < 0.5:
                    self._watch(answer.json["execution_id"], nursery)

    def _accept(self, mark: str, execution_id: str) -> None:
        self._notes.starts[mark].append(execution_id)
        if execution_id not in self._notes.executions:
            self._notes.executions.append(execution_id)

    def _watch(self, execution_id: str, nursery: trio.Nursery) -> None:
        watcher = Watcher(execution_id, self._draw, self._caller, self._notes)
        nursery.start_soon(watcher.follow)

    async def _look(self, nursery: trio.Nursery) -> None:
        answer = await self._caller.once("GET", "/executions/?limit=200")
        if answer.is_good:
            for execution in answer.json["items"]:
                self._notes.see(execution, "list")

    async def _detail(self) -> dict[str, Any] | None:
        if not self._notes.executions:
            return None
        execution_id = self._draw.choice(self._notes.executions[-20:])
        answer = await self._caller.once("GET", f"/executions/{execution_id}/")
        if not answer.is_good:
            if answer.status == 404:
                self._notes.faults.append(f"{execution_id} was accepted and is not there")
            return None
        detail: dict[str, Any] = answer.json
        self._notes.see(detail, "detail")
        return detail

    async def _answer(self, nursery: trio.Nursery) -> None:
        """Answer questions; twice as often yes as no."""
        answer = await self._caller.once("GET", "/executions/?status=interrupted&limit=20")
        waiting = answer.json["items"] if answer.is_good else []
        for execution in waiting:
            execution_id = execution["execution_id"]
            detail = await self._caller.once("GET", f"/executions/{execution_id}/")
            for question in detail.json["pending_confirmations"] if detail.is_good else []:
                task_id = question["task_id"]
                said = {"input": self._draw.choice(("yes", "yes", "no")), "task_id": task_id}
                told = await self._caller.once("POST", f"/executions/{execution_id}/resume/", said)
                if told.is_good:
                    self._notes.see(told.json, "resume")
                    self._notes.answered.append(
                        Answered(execution_id=execution_id, task_id=task_id)
                    )

    async def _cancel(self, nursery: trio.Nursery) -> None:
        detail = await self._detail()
        if detail is None or self._draw.random() < 0.4:
            return
        execution_id = detail["execution_id"]
        answer = await self._caller.once("POST", f"/executions/{execution_id}/cancel/")
        if answer.is_good:
            self._notes.see(answer.json, "cancel")
            if answer.json["status"] == "cancelled":
                self._notes.cancelled.append(execution_id)

    async def _retry(self, nursery: trio.Nursery) -> None:
        detail = await self._detail()
        if detail is None or detail["status"] not in {"failed", "cancelled"}:
            return
        path = f"/executions/{detail['execution_id']}/retry/"
        answer = await self._caller.once("POST", path, {})
        if answer.is_good:
            retried = answer.json["execution_id"]
            self._notes.executions.append(retried)
            self._notes.starts[f"retry {retried}"] = [retried]
            self._watch(retried, nursery)


class Watcher:
    """Follows one execution over any number of connections until its last event."""

    def __init__(self, execution_id: str, draw: Random, caller: Caller, notes: Notes) -> None:
        self._id = execution_id
        self._draw = draw
        self._caller = caller
        self._notes = notes
        self._events: list[dict[str, Any]] = []
        self._complete = False

    async def follow(self) -> None:
        """Follow to the end, or for so long that somebody must have noticed."""
        try:
            with trio.move_on_after(LISTEN_SECONDS):
                while not self._complete:
                    try:
                        await self._listen()
                    except (ConnectionLost, SocketClosed):
                        await trio.sleep(self._draw.choice((1, 2, 4)))
        finally:
            self._notes.heard.append(
                Heard(
                    execution_id=self._id,
                    since=0,
                    events=tuple(self._events),
                    complete=self._complete,
                )
            )

    async def _listen(self) -> None:
        socket = await self._caller.socket()
        patience = self._draw.choice((1.0, 10.0, 500.0, 500.0))
        try:
            since = self._events[-1]["seq"] if self._events else 0
            channel = f"execution:{self._id}"
            await socket.say({"type": "subscribe", "channel": channel, "since": since})
            if self._draw.random() < 0.3:
                await socket.say({"type": "batch", "enabled": True})
            with trio.move_on_after(patience):
                while not self._complete:
                    frame = await socket.hear()
                    for event in frame if isinstance(frame, list) else [frame]:
                        await self._take(event, socket)
        finally:
            socket.hang_up()

    async def _take(self, event: dict[str, Any], socket: Socket) -> None:
        if event["type"] == "ping":
            await socket.say({"type": "pong"})
        elif "seq" in event:
            self._events.append(event)
            self._complete = event["type"].removeprefix("execution_") in TERMINAL


class Bystander:
    """Reads a workflow's channel, live only: whatever it gets, it gets once and in order."""

    def __init__(self, slug: str, caller: Caller, notes: Notes) -> None:
        self._slug = slug
        self._caller = caller
        self._notes = notes

    async def listen(self) -> None:
        """Listen until cancelled, reconnecting."""
        while True:
            heard: dict[str, list[dict[str, Any]]] = {}
            try:
                socket = await self._caller.socket()
                try:
                    await self._read(socket, heard)
                finally:
                    socket.hang_up()
            except (ConnectionLost, SocketClosed):
                await trio.sleep(3)
            finally:
                self._note(heard)

    async def _read(self, socket: Socket, heard: dict[str, list[dict[str, Any]]]) -> None:
        await socket.say({"type": "subscribe", "channel": f"workflow:{self._slug}"})
        while True:
            frame = await socket.hear()
            if frame["type"] == "ping":
                await socket.say({"type": "pong"})
            elif "seq" in frame:
                heard.setdefault(frame["execution_id"], []).append(frame)

    def _note(self, heard: dict[str, list[dict[str, Any]]]) -> None:
        for execution_id, events in heard.items():
            self._notes.heard.append(
                Heard(
                    execution_id=execution_id,
                    since=events[0]["seq"] - 1,
                    events=tuple(events),
                    complete=False,
                    live=True,
                )
            )
