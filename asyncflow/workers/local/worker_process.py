"""One worker process of this machine, as the engine sees it: its sockets, its files, its tasks."""

from __future__ import annotations

import signal
import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from asyncflow._quick_classes import NamedTuple
from asyncflow._support import fork_safety
from asyncflow.workers.interface import AHEAD
from asyncflow.workers.local import fork_server
from asyncflow.workers.local.claim_pipe import ClaimPipe
from asyncflow.workers.local.spool_reader import SpoolReader
from asyncflow.workers.messages import (
    AttemptKey,
    StartItems,
    StartTask,
    pack_order,
    unpack_order,
)
from asyncflow.workers.report_stream import ReportStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.workers.local.spool import Spool
    from asyncflow.workers.messages import OrderMessage, ReportMessage
    from asyncflow.workers.report_stream import WholeAttempts

_PACKET_BYTES: Final = 1 << 18
READ_BYTES: Final = 1 << 14
"""Some 200 reports of short tasks: the event loop is busy for half a millisecond."""


class Printed(NamedTuple):
    """Output in a worker's spool files before these offsets belongs to this attempt."""

    attempt: AttemptKey
    upto: Sequence[int]
    is_end: bool


class Exited(NamedTuple):
    """A worker is gone; these are the final sizes of its output."""

    how: str
    printed: Sequence[int]


class Pool(Protocol):
    """What a worker needs of the pool that it belongs to."""

    def watch_room(self, worker: WorkerProcess, *, wanted: bool) -> None:
        """Flush the worker's orders as soon as its socket has room."""

    def give_back(self, worker: WorkerProcess, attempts: Sequence[AttemptKey]) -> None:
        """Report that these attempts will not begin."""

    def kill(self, worker: WorkerProcess, number: int, *, is_late: bool = False) -> None:
        """Send a signal to the worker's process group, perhaps because its task is out of time."""

    def pause(self, worker: WorkerProcess) -> None:
        """Report nothing of the worker for now."""

    def resume(self, worker: WorkerProcess) -> None:
        """Report the worker's messages again."""


class WorkerProcess:
    """One worker process as the engine sees it."""

    takes_several = True
    ahead = AHEAD

    __slots__ = (
        "_backlog",
        "_pool",
        "claims",
        "ended",
        "ended_seconds",
        "ended_with_others",
        "has_exited",
        "orders",
        "output",
        "paused",
        "pid",
        "read_at",
        "read_bytes",
        "reports",
        "silent",
        "spools",
        "stop_reason",
        "stream",
        "taken_back",
        "tasks",
        "token",
        "untold",
    )

    def __init__(self, pool: Pool, token: int, spools: tuple[Spool, Spool]) -> None:
        self._pool = pool
        self.token = token
        """Identifies the worker before its process has an id."""
        self.pid = 0
        """The process id; 0 while it is being started."""
        self.stop_reason = ""
        """Why it is being killed; empty while it is not."""
        self.ended_with_others = False
        """See `WorkerLink.ended_with_others`."""
        self.orders, self.taken_back = fork_server.packet_pair()
        self.reports = socket.socket()
        self.claims = ClaimPipe()
        self.spools = spools
        self.output = SpoolReader(spools)
        self.stream = ReportStream()
        self.read_bytes = READ_BYTES
        """How much to read of its reports at a time."""
        self.read_at = 0.0
        """When all of its reports had been read, by the loop's clock."""
        self.silent = 0
        """Polls since its last report; 0 while more may come."""
        self.untold: deque[ReportMessage | WholeAttempts | Printed | Exited] = deque()
        """Reports that were received but not passed on yet."""
        self.paused = False
        """Whether to pass on none of its reports for now."""
        self.has_exited = False
        """Whether its process is gone, even if that was not reported yet."""
        self.tasks: dict[AttemptKey, bool] = {}
        """The attempts that it was sent, in order, until their end is reported: whether each
        began."""
        self.ended = 0
        """How many of its tasks were reported to have ended, since that was last looked at."""
        self.ended_seconds = 0.0
        """How long these took together."""
        self._backlog: list[tuple[bytes, bytes]] = []
        """Orders for which the socket has no room yet, each with claims to be written before."""

    @property
    def name(self) -> str:
        """Its process, for people."""
        return f"process {self.pid}"

    @property
    def node(self) -> str:
        """Empty: it runs on the engine's machine."""
        return ""

    @property
    def is_up(self) -> bool:
        """Whether its process is there."""
        return bool(self.pid)

    @property
    def is_heard(self) -> bool:
        """Always: nothing is between it and this process."""
        return True

    @property
    def is_idle(self) -> bool:
        """Whether all of its attempts were reported to have ended, or were given back."""
        return not self.tasks

    def send(self, order: OrderMessage) -> None:
        """Send an order; it is kept here while the socket is full."""
        if isinstance(order, StartTask):
            self.tasks[order.key] = False
        claims = b""
        if isinstance(order, StartItems):
            self.tasks.update(dict.fromkeys(order.keys(), False))
            claims = order.claims()
        self._backlog.append((pack_order(order), claims))
        self.flush()

    def flush(self) -> None:
        """Send the kept orders as far as there is room."""
        sent = 0
        for packet, claims in self._backlog:
            try:
                if claims and not self.claims.write(claims):
                    break
                if claims:
                    self._backlog[sent] = packet, b""
                self.orders.send(packet)
            except BlockingIOError:
                break
            except OSError:  # it is gone; its exit will be reported
                self._backlog.clear()
                return
            sent += 1
        del self._backlog[:sent]
        self._pool.watch_room(self, wanted=bool(self._backlog))

    def take_back(self) -> None:
        """Take back the tasks that it has not received; each is reported as `GaveBack`."""
        taken = self._unreceived()
        for attempt in taken:
            self.tasks.pop(attempt, None)
        if taken:
            self._pool.give_back(self, taken)

    def _unreceived(self) -> list[AttemptKey]:
        # The claims first: the worker begins none of these any more, wherever their packet is.
        taken = self.claims.take_back()
        packets: list[tuple[bytes, bytes]] = []
        with suppress(BlockingIOError, OSError):
            # The flag, because the worker shares this end and wants it to block.
            while packet := self.taken_back.recv(_PACKET_BYTES, socket.MSG_DONTWAIT):
                packets.append((packet, b""))
        packets += self._backlog
        self._backlog.clear()
        keys = [AttemptKey(run, task, 0) for run, task in taken]
        for packet, claims in packets:
            order = unpack_order(packet)
            if isinstance(order, StartTask):
                keys.append(order.key)
            elif isinstance(order, StartItems) and claims:
                keys += order.keys()  # it was never sent
            elif not isinstance(order, StartItems) or not set(order.keys()) <= set(keys):
                self._backlog.append((packet, b""))  # the worker has begun some of it, or will
        self.flush()
        return keys

    def keep_from_children(self) -> None:
        """Close its sockets in every child that this process forks."""
        for end in (self.orders, self.taken_back, self.reports, self.claims, *self.spools):
            fork_safety.keep_from_children(end)

    @property
    def running(self) -> AttemptKey | None:
        """The attempt that began first; output without a known context counts as its."""
        return next((attempt for attempt, began in self.tasks.items() if began), None)

    def has_more(self) -> bool:
        """Whether it has reported something that was not read yet, or is gone."""
        try:
            self.reports.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def ask_to_stop(self, attempt: AttemptKey, why: str, *, is_late: bool = False) -> None:
        """Send SIGTERM to the worker, if it still runs the attempt."""
        if self._is_at_work(attempt):
            self._kill(signal.SIGTERM, why, is_late=is_late)

    def destroy(self, why: str, attempt: AttemptKey | None = None) -> None:
        """Send SIGKILL; with `attempt`, only if the worker still runs it."""
        if attempt is None or self._is_at_work(attempt):
            self._kill(signal.SIGKILL, why)

    def _is_at_work(self, attempt: AttemptKey) -> bool:
        """Whether a signal would hit this attempt, and not the next one.

        A worker receives a task only when it has ended the one before. So of several tasks that it
        has received, all but the last have ended, and their reports are on the way.
        """
        self.take_back()
        return next(reversed(self.tasks), None) == attempt

    def _kill(self, number: int, why: str, *, is_late: bool = False) -> None:
        self.stop_reason = self.stop_reason or why
        if self.pid:
            self._pool.kill(self, number, is_late=is_late)

    def pause(self) -> None:
        """Report nothing of it for now; it waits when its socket is full."""
        self._pool.pause(self)

    def resume(self) -> None:
        """Report again."""
        self._pool.resume(self)

    def __repr__(self) -> str:
        return f"<Worker {self.pid or 'starting'}{' stop_reason' if self.stop_reason else ''}>"
