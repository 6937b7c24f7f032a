"""What actors, supervisors and families have in common: incarnations, how they end, what follows.

`Cell.run` is the wrapper that supervision rests on: it reports every way of ending and raises
nothing but what came from outside, so a crash never reaches the nursery that holds the siblings.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

import trio

from pipelit.actors.runtime.crash import describe_error, is_cancellation, join, split
from pipelit.actors.runtime.directory import Directory
from pipelit.actors.runtime.envelope import Envelope, LogContext
from pipelit.actors.runtime.errors import RestartLimitExceeded
from pipelit.actors.runtime.messages import ErrorInfo, Exit, ExitReason
from pipelit.actors.runtime.records import Detail, DetailValue, Source
from pipelit.actors.runtime.restart import Directive, Policy, Restart, Verdict, Window, judge

DEFAULT_GRACE = 5.0
RELEASE_SECONDS = 2.0


class State(StrEnum):
    """Where a cell is in its life. Contract: operations.md §2, ActorInfo."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"


class Ended(NamedTuple):
    """How one incarnation ended."""

    end: Exit
    crash: Exception | None = None
    passing: BaseException | None = None
    """What is not the actor's own and must go on outwards: an outer cancellation, Ctrl-C."""


class Cell(ABC):
    """The runtime's record of one path in use; survives incarnations.

    Invariant: from construction to `exit` it is the one cell of its path in the directory.
    """

    is_family = False
    crash_reason = ExitReason.CRASHED

    def __init__(
        self,
        directory: Directory,
        parent: "Cell | None",
        name: str,
        *,
        kind: str,
        policy: Policy,
        window: Window,
        detail: Detail,
    ) -> None:
        self.directory = directory
        self.parent = parent
        self.path: str = "/" if parent is None else f"{parent.path.rstrip('/')}/{name}"
        self.kind = kind
        self.detail = detail
        self.log_context: LogContext = {"actor": self.path, **detail}
        self.policy = policy
        self.state = State.STARTING
        self.incarnation = 0
        self.restarts = 0
        self.started_at: datetime | None = None
        self.last_error: ErrorInfo | None = None
        self.handled = 0
        self.settled = trio.Event()
        """The cell was up once, or has ended."""
        self.exit: Exit | None = None
        self.failure: RestartLimitExceeded | None = None
        """Set with `exit` if this end is its supervisor's end too."""
        self.stop_why: str | None = None
        self.cancel_why: str | None = None
        self._gone = trio.Event()
        self._window = window
        self._scope = trio.CancelScope()
        self._began = 0.0
        self._failures = 0
        self._delay = 0.0
        self._in_window = 0
        self._lives = False
        directory.add(self)

    @property
    def is_ending(self) -> bool:
        """Somebody asked for the end; it is final whatever the policy says."""
        return self.stop_why is not None or self.cancel_why is not None

    @property
    def source(self) -> Source:
        """Whom this cell's records are about."""
        parent = None if self.parent is None else self.parent.path
        return Source(self.path, self.kind, parent, self.incarnation, self.detail)

    def emit(self, event: str, **detail: DetailValue) -> None:
        """Record something about this cell that is neither an error nor an end."""
        self.directory.bus.emit(event, self.source, detail)

    @abstractmethod
    async def live(self) -> None:
        """Live one incarnation. Calls `came_up` once it is ready to serve."""

    async def release(self, end: Exit) -> None:  # noqa: B027 - optional
        """Let go of what the incarnation held. Shielded and bounded by the caller."""

    def never_began(self) -> None:  # noqa: B027 - only parents care
        """Hear that the end came before the beginning."""

    def over(self, end: Exit, *, restarts: bool) -> None:  # noqa: B027 - optional
        """Settle what the incarnation leaves behind. Sync: the end is visible all at once."""

    def close(self, end: Exit) -> None:  # noqa: B027 - optional
        """Take nothing from others any more; answer those who wait that the end is *end*."""

    def comes_again(self, end: Exit) -> bool:
        """Say whether there is work for another life at this path at once."""
        return False

    @abstractmethod
    def deliver(self, envelope: Envelope) -> None:
        """Take a message from outside."""

    def summon(self, key: str) -> "Cell | None":
        """Start the child *key* because somebody wants it. Families can."""
        return None

    def child_changed(self) -> None:  # noqa: B027 - only parents care
        """Hear that a child came up."""

    def child_gone(self, child: "Cell") -> None:  # noqa: B027 - only parents care
        """Hear that *child* has ended for good."""

    def request_stop(self, why: str) -> None:
        """Begin the ordered end: drain, at most `grace` seconds, then cancellation."""
        if self.exit is not None or self.is_ending:
            return
        self.stop_why = why
        if self.state is State.RESTARTING:
            self._scope.cancel(reason=why)
        else:
            self._scope.deadline = trio.current_time() + self.policy.grace
            self.directory.stuck.expect_end(self, self._scope.deadline)
        self.state = State.STOPPING
        self.close(Exit(ExitReason.SHUTDOWN, why))

    def cancel(self, why: str) -> None:
        """Cancel the running incarnation; there will be no other."""
        if self.exit is not None or self.cancel_why is not None:
            return
        self.cancel_why = why
        self.state = State.STOPPING
        self._scope.cancel(reason=why)
        self.directory.stuck.expect_end(self, trio.current_time())
        self.close(Exit(ExitReason.CANCELLED, why))

    async def wait_gone(self) -> Exit:
        """Wait until the cell has ended."""
        await self._gone.wait()
        assert self.exit is not None
        return self.exit

    async def run(self) -> None:
        """Live until the end. Raises only what came from outside."""
        while True:
            directive, ended = self._decide(await self._incarnation())
            verdict = self._judge(directive, ended)
            self._record_end(ended, verdict)
            restarts = verdict.next is Directive.RESTART
            if restarts:
                self.state = State.RESTARTING
            self.over(ended.end, restarts=restarts)
            if not restarts and (verdict.gave_up or not self._begins_again(ended.end)):
                break
        if verdict.next is Directive.ESCALATE:
            limit = self._window.limit
            self.failure = RestartLimitExceeded(self.path, limit.restarts, limit.within)
            self.failure.__cause__ = ended.crash
        self.finish(ended.end)
        if ended.passing is not None:
            raise ended.passing

    @contextmanager
    def lived_elsewhere(self) -> Iterator[None]:
        """Live the one incarnation in the calling task. Raises what the block raises."""
        crash: Exception | None = None
        passing: BaseException | None = None
        self._begin()
        self.came_up()
        try:
            with self._scope:
                yield
        except BaseException as error:  # only looked at
            crash, passing = split(error)
            raise
        finally:
            ended = Ended(self._exit(crash, passing), crash, passing)
            self._record_end(ended, Verdict(Directive.STOP))
            self.over(ended.end, restarts=False)
            self.finish(ended.end)

    def came_up(self) -> None:
        """Say that the incarnation is ready to serve."""
        self.started_at = datetime.fromtimestamp(self.directory.wall(), UTC)
        if self.incarnation == 1:
            self.emit("actor_started", restart=self.policy.restart)
        else:
            self.emit(
                "actor_restarted",
                backoff_ms=round(self._delay * 1000),
                restarts_in_window=self._in_window,
            )
        if not self.is_ending:
            self.state = State.RUNNING
        self.settled.set()
        if self.parent is not None:
            self.parent.child_changed()

    def finish(self, end: Exit) -> None:
        """Free the path and tell everybody. The last record has been emitted."""
        self.exit = end
        self.state = State.STOPPING
        self.directory.stuck.forget(self)
        self.directory.remove(self, end, final=end.reason is not ExitReason.PASSIVATED)
        self.close(end)
        self.settled.set()
        self._gone.set()
        if self.parent is not None:
            self.parent.child_gone(self)

    def finish_unstarted(self, why: str) -> None:
        """End a cell whose turn to start never came."""
        end = Exit(ExitReason.SHUTDOWN, self.stop_why or why)
        self.never_began()
        self._record_end(Ended(end), Verdict(Directive.STOP))
        self.finish(end)

    async def _incarnation(self) -> Ended:
        crash: Exception | None = None
        passing: BaseException | None = None
        self._lives = False
        self._scope = trio.CancelScope()
        try:
            if self.is_ending:
                self.never_began()
            else:
                with self._scope:
                    if self.state is State.RESTARTING:
                        await trio.sleep(self._delay)
                    self._begin()
                    await self.live()
        except BaseException as error:  # noqa: BLE001, ASYNC103 - kept for the end
            crash, passing = split(error)
        if self._lives:
            try:
                with trio.move_on_after(RELEASE_SECONDS, shield=True):
                    await self.release(self._exit(crash, passing))
            except BaseException as error:  # noqa: BLE001, ASYNC103 - likewise
                late_crash, late_passing = split(error)
                crash, passing = join(crash, late_crash), passing or late_passing
        # Only now: the end may have been asked for, or become a crash, while releasing.
        return Ended(self._exit(crash, passing), crash, passing)

    def _begin(self) -> None:
        self._lives = True
        self.incarnation += 1
        self._began = trio.current_time()

    def _exit(self, crash: Exception | None, passing: BaseException | None) -> Exit:
        if crash is not None:
            return Exit(self.crash_reason, None, describe_error(crash))
        if self.cancel_why is not None:
            return Exit(ExitReason.CANCELLED, self.cancel_why)
        if passing is not None:
            cancelled = is_cancellation(passing)
            return Exit(ExitReason.CANCELLED if cancelled else ExitReason.KILLED, "from outside")
        if self.stop_why is not None:
            was_killed = self._lives and self._scope.cancelled_caught
            return Exit(ExitReason.KILLED if was_killed else ExitReason.SHUTDOWN, self.stop_why)
        return Exit(self.own_end())

    def own_end(self) -> ExitReason:
        """Return how an incarnation ended that nobody asked to end."""
        return ExitReason.NORMAL

    def _decide(self, ended: Ended) -> tuple[Directive, Ended]:
        decide = self.policy.decide
        if ended.crash is None or decide is None:
            return Directive.RESTART, ended
        try:
            return decide(ended.crash), ended
        except Exception as error:  # noqa: BLE001 - becomes part of the crash it could not judge
            crash = join(ended.crash, error)
            return Directive.RESTART, Ended(self._exit(crash, None), crash, ended.passing)

    def _judge(self, directive: Directive, ended: Ended) -> Verdict:
        if ended.passing is not None or self.is_ending:
            return Verdict(Directive.STOP)
        by_itself = ended.crash is None
        if by_itself and (
            self.policy.restart is not Restart.PERMANENT
            or ended.end.reason is ExitReason.PASSIVATED
        ):
            return Verdict(Directive.STOP)
        now = trio.current_time()
        verdict = judge(directive, self.policy.restart, self._window, now)
        if verdict.next is Directive.RESTART:
            healthy = self._lives and now - self._began >= self.policy.backoff.reset_after
            self._failures = 1 if healthy else self._failures + 1
            self._delay = self.policy.backoff.delay(self._failures, self.directory.rng)
            self._in_window = verdict.in_window
            self.restarts += 1
        return verdict

    def _record_end(self, ended: Ended, verdict: Verdict) -> None:
        bus, end = self.directory.bus, ended.end
        if ended.crash is not None:
            self.last_error = end.error
            crashed = {"message_type": self.message_type(), "next": verdict.next}
            bus.emit("actor_crashed", self.source, crashed, reason=end.reason, error=end.error)
        if verdict.gave_up:
            limit = self._window.limit
            gave_up = {"max_restarts": limit.restarts, "window_s": limit.within}
            bus.emit("actor_gave_up", self.source, gave_up, reason=end.reason, error=end.error)
        elif ended.crash is None and verdict.next is Directive.STOP:
            uptime = trio.current_time() - self._began if self._lives else 0.0
            stopped: dict[str, DetailValue] = {
                "uptime_ms": round(uptime * 1000),
                "messages_handled": self.handled,
            }
            if end.why is not None:
                stopped["why"] = end.why
            bus.emit("actor_stopped", self.source, stopped, reason=end.reason)

    def message_type(self) -> str | None:
        """Return the type of the message in hand."""
        return None

    def _begins_again(self, end: Exit) -> bool:
        if self.is_ending or not self.comes_again(end):
            return False
        if end.reason is not ExitReason.PASSIVATED:
            self.directory.tell_watchers(self.path, end)
        self.directory.lives += 1
        self.state = State.STARTING
        self.incarnation = 0
        self.handled = 0
        return True
