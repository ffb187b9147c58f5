"""The fork server: a warm process that workers are forked from, and that lets none of them survive.

There are two ways to get one. A command that will run a flow calls `prefork` early, while its
process is small and has one thread. Such a fork takes some milliseconds. Otherwise `start` executes
a fresh interpreter, because forking an application with threads and an event loop is not safe.

The fork server stays single-threaded. It imports what every worker needs, and no user code. It does
three things. It forks a worker when asked; the sockets and files come with the request. It reports
when a worker has exited or was stopped. And when the engine goes away, for whatever reason, it
kills every descendant and exits. For that it is the *subreaper* of its descendants (prctl(2)): a
grandchild whose parent died becomes its child. Where there is no subreaper (macOS), the process
group of each worker is killed.

The fork server may be killed itself, and then nobody would end what its workers had started. So its
parent, between it and the engine, is the *reaper*. That process only waits until the engine or the
fork server is gone, and then kills every descendant. If the reaper is killed, the fork server does
the same. So whichever of the three is gone, another one clears up.

    engine ── reaper ── fork server ── workers ── what steps start

Requests and answers are msgpack arrays, one in a packet:

    engine -> fork server  ["fork", token, argv]               and 5 descriptors
                           ["kill", pid, signal, is_late]
                           ["suspend"], ["resume"]             all workers stand still, and go on
                           ["ping"]
    fork server -> engine  ["forked", token, pid]
                           ["failed", token, why]
                           ["stopped", pid, signal]            by somebody else; it has not ended
                           ["continued", pid]
                           ["exited", pid, wait status]
                           ["pong"]                            all that was asked before is done
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgpack

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.fork_safety import keep_from_children, no_forks
from asyncflow._support.paths import import_path
from asyncflow.workers.process.stop_signals import (
    STOP_SIGNALS,
    Moment,
    StopOrder,
    StopSignals,
    block_stop_signals,
    note_stop_signals,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_DESCRIPTORS: Final = 5  # orders, reports, stdout spool, stderr spool, claims
_PACKET_BYTES: Final = 1 << 17


def packet_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a socket that keeps messages apart, in order and reliably."""
    kind = getattr(socket, "SOCK_SEQPACKET", socket.SOCK_DGRAM)
    if sys.platform == "darwin":  # no packet sockets there; its datagrams are reliable and ordered
        kind = socket.SOCK_DGRAM
    return socket.socketpair(socket.AF_UNIX, kind)


class ForkServerProcess(NamedTuple):
    """A running fork server, as its engine holds it."""

    pid: int
    """The pid of its reaper, if it has one; both are in the process group with this number."""
    control: socket.socket
    environment: Mapping[str, str]
    """The environment variables with which its workers begin."""


_preforked: list[ForkServerProcess] = []


def prefork() -> None:
    """Fork the fork server from this process now, for the next engine to use.

    Does nothing if this process already has a second thread: such a fork is not safe.
    """
    if _preforked or _thread_count() != 1 or not hasattr(os, "fork"):
        return
    # Before the fork, so that it is imported once: what the engine needs as well. The rest of a
    # worker is imported by the fork server, while the engine starts.
    import asyncflow.events.packing
    import asyncflow.flow.graph_reader
    import asyncflow.flow.loader
    import asyncflow.store.artifacts
    import asyncflow.workers.messages  # noqa: F401 - start-up time: only a command that will run a flow
    from asyncflow.store import import_local_store
    from asyncflow.workers.process.finalization import flush_files

    import_local_store()
    flush_files()
    ours, theirs = packet_pair()
    environment = dict(os.environ)
    before = block_stop_signals()  # until the fork server has handlers of its own
    pid = os.fork()
    if pid == 0:
        ours.close()
        _exit_after(theirs)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    keep_from_children(ours)
    _preforked.append(ForkServerProcess(pid, ours, environment))


def is_preforked() -> bool:
    """Whether the next fork server is there already, because a flow is about to be run."""
    return bool(_preforked)


def start(environment: Mapping[str, str] | None = None) -> ForkServerProcess:
    """The preforked fork server, else a fresh one with these environment variables, or ours.

    It may still be starting.
    """
    while _preforked:
        preforked = _preforked.pop()
        # otherwise it belongs to a parent that forked this process
        if preforked.control.fileno() >= 0:
            return preforked
    with no_forks():  # a child with `theirs` open would hide the fork server's end from the engine
        return _execute(environment)


def _execute(environment: Mapping[str, str] | None) -> ForkServerProcess:
    import subprocess

    ours, theirs = packet_pair()
    keep_from_children(ours)
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing does
    # with our sys.path, so that the fork server imports the same asyncflow as its engine
    setup = f"import sys; sys.path[:] = {import_path()!r}"
    start = f"fork_server.main({theirs.fileno()})"
    code = f"{setup}; from asyncflow.workers.local import fork_server; {start}"
    environment = dict(os.environ if environment is None else environment)
    before = block_stop_signals()  # until the fork server has handlers of its own
    try:
        process = subprocess.Popen(
            [sys.executable, *flags, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=environment,
            process_group=0,  # Ctrl-C in the terminal is for the engine
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    process.returncode = 0  # the pool reaps it; Popen need not complain about it
    return ForkServerProcess(process.pid, ours, environment)


def main(control_descriptor: int) -> None:
    """Run as a freshly executed fork server; does not return."""
    _exit_after(socket.socket(fileno=control_descriptor))


def _exit_after(control: socket.socket) -> None:
    """Be the reaper of a fork server, and in a child that fork server."""
    code = 1
    try:
        os.setpgid(0, 0)  # Ctrl-C in the terminal is for the engine
        become_subreaper()
        reaper_end, template_end = socket.socketpair()
        if sys.platform == "linux" and (pid := os.fork()):
            template_end.close()
            code = _reap_in_the_end(control, reaper_end, pid)
        else:
            if sys.platform == "linux":
                reaper_end.close()
            _ForkServer(control, template_end).serve()
            code = 0
    except BaseException:  # noqa: BLE001 - nothing above can handle it: print it and exit
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(BaseException):
            sys.stderr.flush()
        os._exit(code)


def _reap_in_the_end(control: socket.socket, template: socket.socket, fork_server: int) -> int:
    """Wait until the engine or the fork server is gone, then kill every descendant.

    Return the exit status of the fork server if it has failed by itself, else 0.

    The stop signals stay blocked here. While this process has `control` open, the engine does not
    notice the end of a fork server before all descendants are gone.
    """
    import select

    poll = select.poll()
    poll.register(control, 0)  # data is for the other one; a hang-up is reported anyway
    poll.register(template, select.POLLIN)
    poll.poll()
    return _kill_descendants(fork_server)


def _thread_count() -> int:
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - only the names are needed
    except OSError:
        import threading

        return threading.active_count() if sys.platform == "linux" else 2


class _ForkServer:
    def __init__(self, control: socket.socket, reaper: socket.socket) -> None:
        self._control, self._reaper = control, reaper
        self._workers: dict[int, StopOrder] = {}  # by pid: when its engine has asked it to end
        self._suspended = False  # whether the engine has stopped all workers
        self._to_all = Moment()  # when this process got a signal that was sent to all processes

    def serve(self) -> None:
        """Answer requests until the engine or the reaper is gone, then kill every descendant."""
        note_stop_signals(self._to_all)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        waking, wakeup = os.pipe()
        os.set_blocking(waking, False)
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)
        become_subreaper()
        import asyncflow.workers.process.worker  # noqa: F401 - warm: every fork has it

        gc.collect()
        gc.freeze()  # pages that the collector does not touch stay shared
        import select

        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._reaper, select.POLLIN)
        poll.register(waking, select.POLLIN)
        try:
            while self._turn({descriptor for descriptor, _ in poll.poll()}, waking):
                pass
        finally:
            self._kill_everything()

    def _turn(self, ready: set[int], waking: int) -> bool:
        if waking in ready:
            with suppress(BlockingIOError):
                os.read(waking, 4096)
            self._reap()
        if self._reaper.fileno() in ready:
            return False
        if self._control.fileno() in ready:
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    self._control, _PACKET_BYTES, _DESCRIPTORS
                )
            except OSError:
                return False
            if not data:
                return False
            request = msgpack.unpackb(data, unicode_errors="surrogateescape")
            self._carry_out(request, descriptors)
        return True

    def _carry_out(self, request: list[Any], descriptors: list[int]) -> None:
        match request:
            case ["fork", token, argv]:
                self._fork(token, argv, descriptors)
            case ["kill", pid, number, is_late] if pid in self._workers:
                if number == signal.SIGTERM:
                    self._workers[pid].note_order(is_late=is_late)
                _kill_group(pid, number)
            case ["suspend" | "resume" as what]:
                self._suspended = what == "suspend"
                for pid in self._workers:
                    _kill_group(pid, signal.SIGSTOP if self._suspended else signal.SIGCONT)
            case ["ping"]:
                self._say(["pong"])

    def _fork(self, token: int, argv: list[str], descriptors: list[int]) -> None:
        parent = os.getpid()
        before = block_stop_signals()  # until the worker has handlers of its own
        try:
            told = StopOrder()
            pid = os.fork()
        except OSError as error:  # too many processes, or no memory: perhaps only for a moment
            answer = ["failed", token, str(error.strerror)]
        else:
            if pid == 0:
                signals = StopSignals(self._to_all, told)
                others = self._control, self._reaper
                _become_worker(others, parent, argv, descriptors, signals)
            with suppress(OSError):
                os.setpgid(pid, pid)  # in both processes, as either may be first
            self._workers[pid] = told
            answer = ["forked", token, pid]
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for descriptor in descriptors:
            os.close(descriptor)
        self._say(answer)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._workers:
                self._tell_of(pid, status)

    def _tell_of(self, pid: int, status: int) -> None:
        if os.WIFCONTINUED(status):
            self._say(["continued", pid])
        elif not os.WIFSTOPPED(status):
            del self._workers[pid]
            _kill_group(pid, signal.SIGKILL)  # what its steps had started
            self._say(["exited", pid, status])
        elif not self._suspended:
            self._say(["stopped", pid, os.WSTOPSIG(status)])

    def _say(self, answer: Sequence[Any]) -> None:
        with suppress(OSError):  # the engine is gone; the next turn notices
            self._control.send(msgpack.packb(answer))

    def _kill_everything(self) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for pid in self._workers:
            _kill_group(pid, signal.SIGKILL)
        _kill_descendants()


def _kill_descendants(fork_server: int = 0) -> int:
    """Kill all descendants of this process, which is their subreaper; they are gone on return.

    Return the exit status of the fork server; 0 if it was killed.
    """
    code = 0
    while True:
        for pid in _children():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return code
        if pid == fork_server and os.WIFEXITED(status):
            code = os.WEXITSTATUS(status)


def _ignore(*_: object) -> None:
    """A handler, so that the signal interrupts the poll."""


def _become_worker(
    others: Sequence[socket.socket],
    parent: int,
    argv: list[str],
    descriptors: list[int],
    signals: StopSignals,
) -> None:
    code = 1
    try:
        for end in others:
            end.close()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with suppress(OSError):
            os.setpgid(0, 0)
        die_with_parent(parent)
        from asyncflow.workers.process import worker  # already imported: a look-up

        worker.main(descriptors, argv, signals)
        code = 0
    except SystemExit as stop:  # SIGTERM came between two steps
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last frame of this process
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(BaseException):
            sys.stderr.flush()
        os._exit(code)


def _kill_group(pid: int, number: int) -> None:
    with suppress(OSError):
        os.killpg(pid, number)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123 - one short read
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def become_subreaper() -> None:
    """Make orphaned descendants children of this process, where the platform can."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Have this process killed when that one, which has started it, is gone."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)
