"""The engine's end of the fork server: starts it, asks it for workers, and handles its answers.

The client also supervises the fork server. If it does not answer, it is sent SIGCONT, and killed in
the end; if it is gone, it is replaced; if it has ended, it is reaped.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgpack

from asyncflow._support import log
from asyncflow._support.conditions import SureTimer, pause
from asyncflow.errors import PoolError
from asyncflow.store.files import explain_write
from asyncflow.workers.local import fork_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncflow.workers.local.fork_server import ForkServerProcess

_PACKET_BYTES: Final = 1 << 18
_ARGV_CHARACTERS: Final = 1 << 14  # each takes at most 4 bytes and its length
_FAILED_STARTS: Final = 3  # fork servers that end by themselves before they have forked a worker
_KILLED_STARTS: Final = 60  # the same, killed by somebody: that takes longer than a minute
_PAUSE_SECONDS: Final = 0.05  # before the third of them; twice as long each further time,
_LONGEST_PAUSE_SECONDS: Final = 2.0  # up to this
_REAP_TRIES: Final = 2000  # a millisecond apart
_AGAIN_SECONDS: Final = 0.05
_HANDLING_TRIES: Final = 3  # of what the fork server says, if each raises an exception
_LOOK_SECONDS: Final = 0.5
_WOKEN_LOOKS: Final = 10  # without an answer, until the fork server is sent SIGCONT
_KILLED_LOOKS: Final = 120  # the same, until it is killed: it may only just be starting


class ForkServerListener(Protocol):
    """Is told what the fork server reports."""

    def on_forked(self, token: int, pid: int) -> None:
        """The worker of this token has a process."""

    def on_not_forked(self, token: int, why: str) -> None:
        """The worker of this token could not be started."""

    def on_changed(self, pid: int, what: str, number: int = 0) -> None:
        """A worker `exited` with a wait status, was `stopped` by a signal, or `continued`."""

    def on_fork_server_gone(self) -> None:
        """The fork server was killed, and its workers with it; `start_anew` replaces it."""

    def on_fork_server_back(self, broken: PoolError | None) -> None:
        """Another fork server was started after a pause, or there will be none for this reason."""


class ForkServerClient:
    """The engine's connection to its fork server."""

    def __init__(self, listener: ForkServerListener) -> None:
        self.environment: Mapping[str, str] = {}
        """The environment variables that workers begin with."""
        self._listener = listener
        self._process: ForkServerProcess | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gone = 0  # in a row, before they have forked a worker
        self._failed = 0  # of these, how many have ended by themselves
        self._starting: SureTimer | None = None
        self._unanswered = 0  # pings
        self._looks = 0  # polls in a row at which it had not answered
        self._looking: SureTimer | None = None
        self._unreaped: set[int] = set()  # fork servers that have ended or are about to
        self._heard: deque[bytes] = deque()  # packets that are being handled
        self._tries = 0  # how often handling the first of them has failed

    @property
    def is_up(self) -> bool:
        """Whether there is a fork server to ask."""
        return self._process is not None

    # --- start and end ---

    def start(self) -> None:
        """Start the fork server; it warms up while the caller goes on.

        Raises:
            PoolError: No process can be started.
        """
        self._loop = asyncio.get_running_loop()
        try:
            self._process = fork_server.start(self.environment or None)
            self.environment = self._process.environment
        except OSError as error:
            raise PoolError(explain_start(error)) from error
        control = self._process.control
        control.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self._loop.add_reader(control, self._on_control)
        self._unanswered = self._looks = 0

    def start_anew(self) -> PoolError | None:
        """Start a fork server to replace the one that is gone; return the error if that fails.

        If several in a row are gone before they have forked a worker, somebody kills them, or they
        cannot live here. So the next one is started after a pause, and the listener is told then.
        Those that end by themselves are given up soon.
        """
        assert self._loop is not None  # noqa: S101 - `start` has set it
        self._gone += 1
        broken = None
        if self._gone < _FAILED_STARTS:
            broken = self._try_to_start()
        else:
            pause = _PAUSE_SECONDS * 2.0 ** (self._gone - _FAILED_STARTS)
            pause = min(pause, _LONGEST_PAUSE_SECONDS)
            self._starting = SureTimer(self._loop, pause, self._start_after_pause)
        self._reap_until_done()
        return broken

    def _start_after_pause(self) -> None:
        self._reap()
        broken = None
        if self._failed >= _FAILED_STARTS:
            broken = PoolError("the process that starts workers ends before it has started one")
        elif self._gone >= _KILLED_STARTS:
            broken = PoolError(
                "the process that starts workers is killed again and again before it has started "
                "one; see who does that, for example `dmesg` if memory is short"
            )
        if broken is None and not self.is_up:
            broken = self._try_to_start()
        starting, self._starting = self._starting, None
        self._listener.on_fork_server_back(broken)
        if starting is not None:
            starting.cancel()  # last: if an exception breaks this off, it is done again

    def _try_to_start(self) -> PoolError | None:
        try:
            self.start()
        except PoolError as error:
            return error
        return None

    @property
    def is_pausing(self) -> bool:
        """Whether another fork server will be started soon."""
        return self._starting is not None

    def note_forked(self) -> None:
        """A worker has begun, so the fork server is able to start some."""
        self._gone = self._failed = 0

    def disconnect(self) -> ForkServerProcess | None:
        """Leave the fork server, which then kills its workers and exits; None if there is none."""
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        if self._process is None or self._loop is None:
            return None
        left, self._process = self._process, None
        self._loop.remove_reader(left.control)
        left.control.close()
        self._unreaped.add(left.pid)
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        return left

    async def wait_ended(self, process: ForkServerProcess | None, workers: Sequence[int]) -> None:
        """Return when a fork server that was left has ended; kill it if it does not end by itself.

        Args:
            process: The fork server; None if only those are left that were killed.
            workers: The process ids of its workers, which end with it.
        """
        if await self._reap_all() or process is None:
            return
        _send(process, signal.SIGCONT)  # it may have been stopped
        if await self._reap_all():
            return
        _send(process, signal.SIGKILL)  # its workers die with it
        for pid in workers:
            kill_group(pid)
        await self._reap_all()

    async def _reap_all(self) -> bool:
        """Whether no fork server is left after a moment."""
        for _ in range(_REAP_TRIES):
            self._reap()
            if not self._unreaped:
                return True
            await pause(0.001)
        return False

    def _reap(self) -> None:
        """Reap ended fork servers; we hear of a kill a moment before the process has ended."""
        for pid in list(self._unreaped):
            reaped, status = pid, 0
            with suppress(ChildProcessError):  # somebody else has reaped it
                reaped, status = os.waitpid(pid, os.WNOHANG)
            if reaped:
                self._unreaped.discard(pid)
                self._failed += os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0

    def _reap_until_done(self) -> None:
        self._reap()
        if self._unreaped and self._loop is not None and (self.is_up or self.is_pausing):
            self._loop.call_later(0.01, self._reap_until_done)

    # --- what it is asked for ---

    def fork(self, token: int, descriptors: Sequence[int]) -> None:
        """Ask for a worker; `descriptors` are those that the worker's `main` gets.

        Raises:
            OSError: The request cannot be sent.
        """
        assert self._process is not None  # noqa: S101 - the pool has checked
        request = msgpack.packb(["fork", token, _argv()], unicode_errors="surrogateescape")
        socket.send_fds(self._process.control, [request], descriptors)

    def kill(self, pid: int, number: int, *, is_late: bool = False) -> None:
        """Send a signal to a worker's process group, perhaps because its task is out of time."""
        # Through its parent: only there is the process id certain to be still the worker's.
        if self._process is not None:
            with suppress(OSError):
                self._process.control.send(msgpack.packb(["kill", pid, int(number), is_late]))
            self.expect_answer()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Stop all workers within the block, in which this process may be stopped."""
        self._ask_for("suspend")
        try:
            yield
        finally:
            self._ask_for("resume")

    def _ask_for(self, what: str) -> None:
        if self._process is None or self._loop is None:
            return
        try:
            self._process.control.send(msgpack.packb([what]))
        except BlockingIOError:  # there will be room soon
            self._loop.call_later(_AGAIN_SECONDS, self._ask_for, what)
        except OSError:  # it is gone, and its workers with it
            return
        self.expect_answer()

    # --- whether it does that ---

    def expect_answer(self) -> None:
        """Check from time to time whether the fork server has answered the latest request.

        Polls are counted, not seconds: while this process was stopped, no answer could be received.
        """
        if self._process is None or self._loop is None:
            return
        with suppress(OSError):  # if there is no room, other pings wait for their answer already
            self._process.control.send(msgpack.packb(["ping"]))
            self._unanswered += 1
        if self._looking is None:
            self._looking = SureTimer(self._loop, _LOOK_SECONDS, self._look)

    def _look(self) -> None:
        before, self._looking = self._looking, None
        if before is not None:
            before.cancel()
        if self._process is None or self._loop is None or not self._unanswered:
            self._looks = 0
            return
        self._looks += 1
        self._looking = SureTimer(self._loop, _LOOK_SECONDS, self._look)
        if self._looks == _WOKEN_LOOKS:
            message = "the process that starts workers does not answer, and is sent SIGCONT"
            log.warning(message, pid=self._process.pid)
        if _WOKEN_LOOKS <= self._looks < _KILLED_LOOKS:
            _send(self._process, signal.SIGCONT)
        elif self._looks == _KILLED_LOOKS:
            message = "the process that starts workers does not answer, and is killed"
            log.warning(message, pid=self._process.pid)
            # Its reaper kills it, and everything that it has started; its end is noticed as usual.
            self._process.control.shutdown(socket.SHUT_RDWR)
            if sys.platform != "linux":  # it has no process group there
                _send(self._process, signal.SIGKILL)

    # --- what it says ---

    def _on_control(self) -> None:
        assert self._process is not None  # noqa: S101 - the callback is removed with it
        try:
            packet = self._process.control.recv(_PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            log.warning("the process that starts workers is gone; starting another one")
            self.disconnect()
            self._listener.on_fork_server_gone()
            return
        self._looks = 0
        self._heard.append(packet)
        self.take_in()

    def take_in(self) -> None:
        """Handle the received packets.

        A packet stays until it is handled: if an exception of a signal handler interrupts that, the
        next call handles it again.
        """
        while self._heard:
            try:
                self._act_on(self._heard[0])
            except Exception:
                self._tries += 1
                if self._tries == _HANDLING_TRIES:  # it fails by itself
                    self._heard.popleft()
                    self._tries = 0
                raise
            self._heard.popleft()
            self._tries = 0

    def _act_on(self, packet: bytes) -> None:
        message: list[Any] = msgpack.unpackb(packet)
        match message:
            case ["pong"]:
                self._unanswered -= 1
            case ["forked", token, pid]:
                self._listener.on_forked(token, pid)
            case ["failed", token, why]:
                self._listener.on_not_forked(token, why)
            case [what, pid, *more]:
                self._listener.on_changed(pid, what, *more)


def explain_start(error: OSError) -> str:
    """Why no worker process could be started, and what to do."""
    message = f"cannot start a worker process: {error.strerror}"
    if error.errno == errno.EMFILE:
        message += "; let this process open more files, as with `ulimit -n 4096`"
    elif error.filename is not None:
        why = explain_write(error.filename, error, doing="make a file in")
        message = f"cannot start a worker process: {why}"
    return message


def kill_group(pid: int) -> None:
    """Kill what a worker's steps have started; its process id is the number of their group."""
    if pid:
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)


def _argv() -> list[str]:
    """The program's arguments; only its name if they are too long for a packet."""
    return sys.argv if sum(map(len, sys.argv)) < _ARGV_CHARACTERS else sys.argv[:1]


def _send(process: ForkServerProcess, number: int) -> None:
    """Send a signal to a fork server and its reaper, which only we reap."""
    with suppress(OSError):
        os.killpg(process.pid, number)
