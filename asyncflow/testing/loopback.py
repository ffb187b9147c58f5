"""An executor that reaches its workers through a socket only, as workers of another host.

    engine ── LoopbackExecutor ══ socket ══ agent ── pool ── workers

The agent is a process of its own (`loopback_agent`). The engine's side knows no file, signal or
process of a worker: it sends orders and receives reports. The store must be a folder that both can
reach.

It is the model of an executor for a cluster, and proves that nothing above the executor depends on
where workers run.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support import log
from asyncflow._support.conditions import Condition, pause
from asyncflow._support.fork_safety import keep_from_children, no_forks
from asyncflow._support.paths import import_path
from asyncflow.errors import PoolError
from asyncflow.testing.message_stream import MessageStream
from asyncflow.workers.messages import Ready, ReportStream, pack_order

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from asyncflow.workers.interface import WorkerListener
    from asyncflow.workers.messages import AttemptKey, OrderMessage, ReportMessage

_CLOSE_SECONDS: Final = 15.0  # for the agent to close its pool, which takes at most 6 s
_FAILED_STARTS: Final = 3  # agents in a row that end before they have reported anything


@dataclass(frozen=True, slots=True)
class Loopback:
    """Runs the workers of an engine behind a socket: `Engine(executor=Loopback(workers=2))`."""

    workers: int | None = None
    """How many workers there may be; by default those of the engine's settings."""

    def __call__(self, listener: WorkerListener, *, size: int, scratch: Path) -> LoopbackExecutor:
        """An executor for an engine, which has not been started."""
        del scratch  # of this host, which the workers need not have
        return LoopbackExecutor(listener, size=self.workers or size)


class LoopbackExecutor:
    """The engine's side: starts the agent, sends orders, and passes reports on.

    If the agent is killed, its workers end, and the attempts that they had begun are lost. Another
    agent replaces it.
    """

    def __init__(self, listener: WorkerListener, *, size: int) -> None:
        self.size = size
        """How many workers there may be at a time."""
        self.environment: Mapping[str, str] = {}
        """The environment variables with which workers begin."""
        self._listener = listener
        self._links: dict[int, LoopbackWorker] = {}  # by token, in the order of their start
        self._tokens = 0
        self._agent: _AgentProcess | None = None
        self._ended: list[_AgentProcess] = []  # agents that have ended, or are about to
        self._silent_agents = 0  # in a row, that have ended before they reported anything
        self._closing = False

    @property
    def workers(self) -> Collection[LoopbackWorker]:
        """The present workers, in the order of their start."""
        return self._links.values()

    async def start(self) -> None:
        """Start the agent; it warms up while the caller goes on.

        Raises:
            PoolError: No process can be started.
        """
        self.environment = dict(os.environ)
        self._lost = Condition(lambda: self._agent is None)
        self._start_agent()

    def _start_agent(self) -> None:
        try:
            self._agent = _AgentProcess(self)
        except OSError as error:
            message = f"cannot start the agent of a loopback executor: {error.strerror}"
            raise PoolError(message) from error

    async def close(self) -> None:
        """End all workers, and return when none is left. Harmless when repeated.

        Cancelled: the workers end all the same; only the wait is shortened.
        """
        self._closing = True
        agent = self._agent
        try:
            if agent is not None:
                agent.stream.send("close")
                await self._lost.wait(_CLOSE_SECONDS)
        finally:
            if agent is not None:
                self._leave(agent)  # so that its workers end, whatever it is doing
            while self._ended:
                await self._ended[-1].wait_ended()
                self._ended.pop()

    def _leave(self, agent: _AgentProcess) -> None:
        agent.stream.close()
        if self._agent is agent:
            self._agent = None
            self._ended.append(agent)

    def start_worker(self) -> LoopbackWorker:
        """Have one more worker started. Orders can be sent to it at once.

        Raises:
            PoolError: The executor is closed, or its agent could not go on.
        """
        if self._agent is None:
            message = "the executor is closed, or its agent could not go on"
            raise PoolError(message)
        self._tokens += 1
        worker = self._links[self._tokens] = LoopbackWorker(self._agent.stream, self._tokens)
        return worker

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Stop all workers within the block, in which this process may be stopped."""
        self._tell_all("suspend_all")
        try:
            yield
        finally:
            self._tell_all("resume_all")

    def _tell_all(self, what: str) -> None:
        if self._agent is not None:
            self._agent.stream.send(what)

    # --- what the agent says ---

    def on_message(self, message: list[Any]) -> None:
        """Handle a message of the agent."""
        self._silent_agents = 0
        match message:
            case ["broken", why]:
                self._listener.on_broken(PoolError(why))
            case ["exited", token, how]:
                worker = self._links.pop(token, None)
                if worker is not None:
                    self._listener.on_exit(worker, how)
            case [what, token, *arguments]:
                worker = self._links.get(token)
                if worker is not None:
                    self._on_changed(worker, what, *arguments)

    def _on_changed(self, worker: LoopbackWorker, what: str, argument: Any = None) -> None:
        match what:
            case "reports":
                self._listener.on_reports(worker, worker.unpack(argument))
            case "ending":
                worker.stop_reason = worker.stop_reason or argument
            case "stopped":
                self._listener.on_stopped(worker, argument)
            case "continued":
                self._listener.on_continued(worker)

    def on_lost(self) -> None:
        """The agent is gone, and its workers with it. Go on with a new one."""
        if self._agent is not None:
            self._leave(self._agent)
        if self._closing:
            self._lost.look()
            return
        log.warning("the agent of a loopback executor is gone; starting another one")
        lost, self._links = list(self._links.values()), {}
        broken = self._start_anew()
        for worker in lost:
            self._listener.on_exit(worker, "was lost with the agent that hosted it")
        if broken is not None:
            self._listener.on_broken(broken)

    def _start_anew(self) -> PoolError | None:
        self._silent_agents += 1
        if self._silent_agents >= _FAILED_STARTS:
            return PoolError("the agent of a loopback executor ends before it has said anything")
        try:
            self._start_agent()
        except PoolError as error:
            return error
        return None

    def __repr__(self) -> str:
        return f"<LoopbackExecutor {len(self._links)} of {self.size} workers>"


class LoopbackWorker:
    """A worker of the agent, as the engine sees it."""

    def __init__(self, agent: MessageStream, token: int) -> None:
        self.stop_reason = ""
        """Why it should end; empty while it may get tasks."""
        self.pid = 0
        """Its process id at its agent's host; 0 while unknown."""
        self._agent, self._token = agent, token
        self._reports = ReportStream()
        agent.send("start", token)

    @property
    def name(self) -> str:
        """Its process, and where that is."""
        return f"process {self.pid} of the loopback agent"

    @property
    def is_up(self) -> bool:
        """Whether it has reported that it accepts orders."""
        return bool(self.pid)

    def send(self, order: OrderMessage) -> None:
        """Send an order, without waiting."""
        self._agent.send("order", self._token, pack_order(order))

    def take_back(self) -> None:
        """Take back the tasks that it has not received; each is reported as `GaveBack`."""
        self._agent.send("take_back", self._token)

    def ask_to_stop(self, attempt: AttemptKey, why: str) -> None:
        """End the attempt soon, if the agent finds that the worker runs it."""
        self._agent.send("ask_to_stop", self._token, attempt, why)

    def destroy(self, why: str, attempt: AttemptKey | None = None) -> None:
        """End it at once; with `attempt`, only if the agent finds that it runs that."""
        self._agent.send("destroy", self._token, attempt, why)

    def pause(self) -> None:
        """Report nothing of it for now, except what is on its way."""
        self._agent.send("pause", self._token)

    def resume(self) -> None:
        """Report again."""
        self._agent.send("resume", self._token)

    def unpack(self, data: bytes) -> list[ReportMessage]:
        """Unpack its reports."""
        reports = self._reports.feed(data)
        if reports and isinstance(reports[0], Ready):
            self.pid = reports[0].pid
        return reports

    def __repr__(self) -> str:
        return f"<LoopbackWorker {self.pid or 'starting'}>"


class _AgentProcess:
    """An agent, and the stream to it."""

    def __init__(self, executor: LoopbackExecutor) -> None:
        setup = f"import sys; sys.path[:] = {import_path()!r}; sys.argv[:] = sys.argv[1:]"
        start = "from asyncflow.testing import loopback_agent; loopback_agent.main"
        with no_forks():  # a child with `theirs` open would hide the engine's end from the agent
            ours, theirs = socket.socketpair()
            keep_from_children(ours)
            with theirs:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-c",
                        f"{setup}; {start}({theirs.fileno()}, {executor.size})",
                        *sys.argv,
                    ],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env=dict(executor.environment),
                    process_group=0,  # Ctrl-C in the terminal is for the engine
                )
        self.stream = MessageStream(ours, executor.on_message, executor.on_lost)

    async def wait_ended(self) -> None:
        """Return when its process has ended; kill it if it does not end by itself."""
        until = time.monotonic() + _CLOSE_SECONDS
        while self._process.poll() is None:
            if time.monotonic() > until:
                self._process.kill()  # its workers die with it
            await pause(0.005)
