"""A cluster of agent processes on this machine, each reached through a socket only.

    engine ── ClusterExecutor ── thread ── SocketLink ══ socket ══ agent ── pool ── workers

Each node is a process of its own (`loopback_agent`). It is the smallest adapter to the executor for
clusters, and proves that nothing above it depends on where workers run. The store must be a folder
that all can reach; only values are read from it, never the journal of a run that goes on.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.fork_safety import keep_from_children, no_forks
from asyncflow._support.paths import import_path
from asyncflow.errors import AgentGoneError, ClusterError
from asyncflow.testing.message_stream import MessageStream
from asyncflow.workers.cluster.executor import ClusterExecutor

if TYPE_CHECKING:
    from pathlib import Path

    from asyncflow.workers.cluster.interface import Link, Shape
    from asyncflow.workers.interface import WorkerListener

_END_SECONDS: Final = 15.0  # for an agent to close its pool, which takes at most 6 s


@dataclass(frozen=True, slots=True)
class Loopback:
    """Runs the workers of an engine behind sockets: `Engine(executor=Loopback(workers=2))`."""

    workers: int | None = None
    """How many workers there may be; by default those of the engine's settings."""
    nodes: int = 1
    """On how many nodes they are."""

    def __call__(
        self, listener: WorkerListener, *, size: int, scratch: Path, store: str = ""
    ) -> ClusterExecutor:
        """An executor for an engine, which has not been started."""
        del scratch  # of this host, which the workers need not have
        workers = self.workers or size
        slots = -(-workers // self.nodes)
        return ClusterExecutor(
            LoopbackCluster(), listener, workers=workers, slots=slots, store=store
        )


class LoopbackCluster:
    """Starts an agent process for each lease."""

    name = "the loopback cluster"
    places_resources = False

    def __init__(self) -> None:
        self._agents: dict[Link, subprocess.Popen[bytes]] = {}
        self._numbers = count(1)

    async def open(self) -> None:
        """Do nothing: there is always room for a process."""

    async def lease(self, shape: Shape, slots: int) -> Link:
        """An agent in a process of its own.

        Raises:
            ClusterError: No process can be started.
        """
        del shape, slots  # a process has what its machine has
        try:
            process, ours = _start_agent()
        except OSError as error:
            message = f"cannot start an agent of {self.name}: {error.strerror}"
            raise ClusterError(message) from error
        link = SocketLink(ours, f"loopback-{next(self._numbers)}")
        self._agents[link] = process
        return link

    async def release(self, link: Link) -> None:
        """End an agent, if it has not ended."""
        assert isinstance(link, SocketLink)  # noqa: S101 - it was made here
        link.close()  # then the agent ends, and its workers with it
        process = self._agents.pop(link, None)
        if process is None:
            return
        until = time.monotonic() + _END_SECONDS
        try:
            while process.poll() is None:
                if time.monotonic() > until:
                    break
                await asyncio.sleep(0.005)
        finally:
            process.kill()  # its workers die with it; harmless if it has ended
            process.wait()  # for as long as the kernel takes

    async def close(self) -> None:
        """End all agents."""
        for link in list(self._agents):
            await self.release(link)

    def __repr__(self) -> str:
        return f"<LoopbackCluster of {len(self._agents)} agents>"


class SocketLink:
    """The way to an agent through a socket: each request and its answer have a number."""

    def __init__(self, end: socket.socket, node: str) -> None:
        self.node: Final = node
        """A name for its process."""
        self._numbers = count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._is_gone = False
        self._stream = MessageStream(end, self._on_answer, self._on_lost)

    async def push(self, batch: bytes) -> None:
        """Have the agent take a batch in."""
        await self._ask("push", batch)

    async def poll(self, received: int) -> bytes:
        """The agent's next batch."""
        answer: bytes = await self._ask("poll", received)
        return answer

    async def _ask(self, verb: str, argument: bytes | int) -> Any:
        if self._is_gone:
            raise AgentGoneError("its process has ended")
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._stream.send(number, verb, argument)
        try:
            return await answer
        finally:
            del self._asked[number]

    def _on_answer(self, message: list[Any]) -> None:
        number, answer = message
        asked = self._asked.get(number)
        if asked is not None and not asked.done():
            asked.set_result(answer)

    def _on_lost(self) -> None:
        self._is_gone = True
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(AgentGoneError("its process has ended"))

    def close(self) -> None:
        """Close the socket."""
        self._stream.close()
        self._on_lost()

    def __repr__(self) -> str:
        return f"<SocketLink to {self.node}>"


def _start_agent() -> tuple[subprocess.Popen[bytes], socket.socket]:
    setup = f"import sys; sys.path[:] = {import_path()!r}; sys.argv[:] = sys.argv[1:]"
    start = "from asyncflow.testing import loopback_agent; loopback_agent.main"
    with no_forks():  # a child with `theirs` open would hide the engine's end from the agent
        ours, theirs = socket.socketpair()
        keep_from_children(ours)
        with theirs:
            code = f"{setup}; {start}({theirs.fileno()})"
            process = subprocess.Popen(
                [sys.executable, "-c", code, *sys.argv],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=dict(os.environ),
                process_group=0,  # Ctrl-C in the terminal is for the engine
            )
    return process, ours
