"""An actor runtime on Trio: paths, mailboxes, supervision, families, records.

It imports trio, msgspec, the standard library and `pipelit.errors`, nothing else. Its promises are
in `docs/actors.md`.
"""

from pipelit.actors.runtime.actor import Actor, Context, Reply, Timer
from pipelit.actors.runtime.attach import Inbox
from pipelit.actors.runtime.directory import Faults
from pipelit.actors.runtime.envelope import get_log_context, get_origin, origin
from pipelit.actors.runtime.errors import (
    ActorDied,
    ActorError,
    ActorExists,
    ActorRestarting,
    AskCycle,
    AskTimeout,
    InboxClosed,
    MailboxFull,
    NoReply,
    RestartLimitExceeded,
)
from pipelit.actors.runtime.family import Family
from pipelit.actors.runtime.lifecycle import State
from pipelit.actors.runtime.mailbox import Mailbox, Overflow
from pipelit.actors.runtime.messages import ErrorInfo, Exit, ExitReason, Message, Request
from pipelit.actors.runtime.records import Detail, Record, Sink, Subscription
from pipelit.actors.runtime.ref import ActorRef
from pipelit.actors.runtime.restart import Backoff, Directive, OnLimit, Restart, RestartLimit
from pipelit.actors.runtime.snapshot import ActorInfo, KindCount
from pipelit.actors.runtime.spec import AnySpec, ChildSpec, FamilySpec, SupervisorSpec
from pipelit.actors.runtime.system import System, open_system

__all__ = [
    "Actor",
    "ActorDied",
    "ActorError",
    "ActorExists",
    "ActorInfo",
    "ActorRef",
    "ActorRestarting",
    "AnySpec",
    "AskCycle",
    "AskTimeout",
    "Backoff",
    "ChildSpec",
    "Context",
    "Detail",
    "Directive",
    "ErrorInfo",
    "Exit",
    "ExitReason",
    "Family",
    "FamilySpec",
    "Faults",
    "Inbox",
    "InboxClosed",
    "KindCount",
    "Mailbox",
    "MailboxFull",
    "Message",
    "NoReply",
    "OnLimit",
    "Overflow",
    "Record",
    "Reply",
    "Request",
    "Restart",
    "RestartLimit",
    "RestartLimitExceeded",
    "Sink",
    "State",
    "Subscription",
    "SupervisorSpec",
    "System",
    "Timer",
    "get_log_context",
    "get_origin",
    "open_system",
    "origin",
]
