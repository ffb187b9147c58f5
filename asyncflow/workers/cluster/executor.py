"""An executor whose workers are on the nodes of a cluster.

It asks the cluster for leases, and starts workers where a lease is up. On the engine's event loop
it only posts messages and handles those that came; everything that waits is on the loop of its own
thread.

A node that does not answer for `LOST_SECONDS` is lost, or at once if the cluster knows that it is
gone. An attempt that had begun there is lost with its worker. What was sent there and not heard of
may have begun as well; it is run again, which a warning says.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections import Counter
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

from asyncflow._support import log
from asyncflow._support.conditions import Condition, call_again, pause, thread_done
from asyncflow._support.timed_call import TimedCall
from asyncflow._support.version import VERSION
from asyncflow.errors import ClusterError, PoolError
from asyncflow.workers.cluster.agent_connection import AgentConnection, SharedRuns
from asyncflow.workers.cluster.executor_thread import ExecutorThread
from asyncflow.workers.cluster.inbound import InboundMessages
from asyncflow.workers.cluster.interface import Shape
from asyncflow.workers.cluster.leases import Leases
from asyncflow.workers.cluster.remote_worker import ClusterNode, RemoteWorker
from asyncflow.workers.cluster.store_reach import mark_of
from asyncflow.workers.messages import Failed, Started

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from concurrent.futures import Future

    from asyncflow.workers.cluster.interface import Cluster, Link
    from asyncflow.workers.interface import Kind, WorkerListener
    from asyncflow.workers.messages import AttemptKey, ReportMessage

_CLOSE_SECONDS: Final = 15.0  # for the agents to close their pools, which takes at most 6 s
_LAST_SECONDS: Final = 2.0  # for links to end that have heard all, which takes them at most 1 s
_RELEASE_SECONDS: Final = 20.0  # for the leases of nodes to be given back, of silent ones too
_LEAVE_SECONDS: Final = 120.0  # for all of that, and for the cluster: Ray's end may take 60 s
_END_SECONDS: Final = 10.0  # for the executor's thread, once it has nothing left to do
_FAILED_STARTS: Final = 3  # agents in a row that end before they have said anything
_SUSPEND_SECONDS: Final = 1.0  # for the agents to hear that the workers have to stand still
_LOOK_SECONDS: Final = 1.0  # between looks for leases that are not needed
_NAMED_TASKS: Final = 20  # in the warning of a lost node


class ClusterExecutor:
    """Where the tasks of one engine run: on the leases that it has of a cluster."""

    def __init__(
        self,
        cluster: Cluster,
        listener: WorkerListener,
        *,
        workers: int,
        slots: int = 1,
        idle_seconds: float | None = None,
        store: str = "",
    ) -> None:
        """Prepare it; nothing is asked for before `start`.

        Args:
            cluster: Gives the leases.
            listener: Is told what the workers do.
            workers: How many workers there may be.
            slots: How many workers a lease is for.
            idle_seconds: For how long a node may have no task until its lease is given back;
                without it, all leases are asked for at the start, and kept.
            store: The store that each node has to reach before it gets a task; if empty, none is
                asked for it.
        """
        self.environment: Mapping[str, str] = {}
        """The environment variables of this process when it was started: a run takes along what
        has changed since. The nodes have variables of their own."""
        self._cluster, self._listener, self._store = cluster, listener, store
        self._nodes: dict[AgentConnection, ClusterNode] = {}  # in the order in which they came
        self._leases = Leases(
            self._nodes.values,
            self._ask,
            most=workers,
            slots=slots,
            idle_seconds=idle_seconds,
        )
        self._workers: dict[int, RemoteWorker] = {}  # by token
        self._tokens = 0
        self._looking: TimedCall | None = None
        self._links: dict[Link, AgentConnection] = {}  # of the executor's thread
        self._serving: dict[AgentConnection, asyncio.Future[None]] = {}  # likewise
        self._silent_agents = 0  # in a row, that have ended before they said anything
        self._closing = False
        self._closed = False

    # --- life -----------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many workers there may be on the leases that are up."""
        return sum(node.slots.total() for node in self._nodes.values() if node.is_up)

    @property
    def workers(self) -> Collection[RemoteWorker]:
        """The present workers, in the order of their start."""
        return self._workers.values()

    @property
    def cluster(self) -> str:
        """What and where its cluster is, for people."""
        return self._cluster.name

    @property
    def nodes(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The names of the nodes that are up, and what their agents have told of themselves."""
        return [(node.name, node.facts) for node in self._nodes.values() if node.is_up]

    async def start(self) -> None:
        """Connect to the cluster, and ask for leases, which come while the caller goes on.

        Raises:
            PoolError: The cluster cannot be used.
        """
        self.environment = dict(os.environ)
        self._loop = asyncio.get_running_loop()
        self._left = Condition(lambda: not (self._nodes or self._leases))
        call_again(self)
        self._inbound = InboundMessages(self._loop, self._on_message)
        self._thread = ExecutorThread()
        self._runs = SharedRuns()
        self._mark = await asyncio.to_thread(mark_of, self._store)
        await thread_done(self._thread.run(self._cluster.open()))
        self._leases.ask_again()
        self._look_after_leases()

    async def close(self) -> None:
        """End all workers and leases, and return when none is left. Harmless when repeated.

        It waits neither for a node that does not answer nor for a client of the cluster that does
        not end: then it returns within three minutes, and a warning says what was left.

        Cancelled: the workers end all the same; only the wait is shortened.
        """
        if self._closed or not hasattr(self, "_thread"):
            return
        self._closing = True
        if self._looking is not None:
            self._looking.cancel()
        try:
            self._leases.close()
            for node in list(self._nodes.values()):
                node.post("close")
            await self._left.wait(_CLOSE_SECONDS)
            leaving = self._thread.run(self._leave_cluster())
            with suppress(Exception):  # whatever the engine's client raises at its end
                await thread_done(leaving, seconds=_LEAVE_SECONDS)
        finally:
            self._thread.stop()
            end = time.monotonic() + _END_SECONDS
            while not self._thread.has_ended and time.monotonic() < end:
                await pause(0.005)
            self._closed = True
            if not self._thread.has_ended:
                log.warning(
                    "the client of a cluster does not end; its thread is left to itself",
                    cluster=self._cluster.name,
                )

    async def _leave_cluster(self) -> None:
        """In the executor's thread: let the links end, then leave.

        A node that has not said by then that it is closed is waited for no longer. Its lease is
        given back, at the same time as those of other nodes.
        """
        if self._serving:
            await asyncio.wait(self._serving.values(), timeout=_LAST_SECONDS)
        for connection in self._links.values():
            self._serving[connection].cancel()
        if self._serving:
            await asyncio.wait(self._serving.values(), timeout=_RELEASE_SECONDS)
        await self._cluster.close()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Stop all workers within the block, in which this process may be stopped.

        It waits for a moment, because a process that is stopped says nothing any more.
        """
        nodes = list(self._nodes.values())
        for node in nodes:
            node.post("suspend_all")
        until = time.monotonic() + _SUSPEND_SECONDS
        while time.monotonic() < until and any(node.connection.is_sending for node in nodes):
            time.sleep(0.005)
        try:
            yield
        finally:
            for node in nodes:
                node.post("resume_all")

    def start_worker(self, kind: Kind = None) -> RemoteWorker:
        """Have one more worker of a kind started. Orders can be sent to it at once.

        It is started where most room is; without any, where the fewest workers are too many.

        Raises:
            PoolError: No lease is up.
        """
        shape = _shape_of(kind)
        up = [node for node in self._nodes.values() if node.is_up and node.slots[shape]]
        if not up or self._closing:
            message = f"no lease of {self._cluster.name} is up, or the executor is closed"
            raise PoolError(message)
        self._tokens += 1
        worker = RemoteWorker(max(up, key=lambda node: node.free(shape)), self._tokens, shape)
        self._workers[self._tokens] = worker
        return worker

    # --- leases ---------------------------------------------------------------------------------

    @property
    def places_resources(self) -> bool:
        """Whether the cluster gives workers what `@resources` asks for."""
        return self._cluster.places_resources

    def kind_of(self, cpu: float, gpu: float, memory: float) -> Kind:
        """The shape of the leases for tasks that need so much."""
        return _kind_of(Shape(cpu or 1.0, gpu, memory))

    def size_of(self, kind: Kind) -> int:
        """How many workers of a kind there may be on the leases that are up."""
        shape = _shape_of(kind)
        return sum(node.slots[shape] for node in self._nodes.values() if node.is_up)

    def is_growing(self, kind: Kind) -> bool:
        """Whether a lease of the kind was asked for in the last seconds, and is not there."""
        return self._leases.is_growing(_shape_of(kind))

    def wish(self, wanted: Mapping[Kind, int]) -> None:
        """Ask for leases for so many more workers than those that have work."""
        busy = Counter(worker.shape for worker in self._workers.values() if not worker.is_idle)
        shapes = {_shape_of(kind): count for kind, count in wanted.items()}
        self._leases.wish({shape: busy[shape] + count for shape, count in shapes.items()})

    def _ask(self, shape: Shape, slots: int) -> Future[None]:
        lease = self._thread.run(self._lease(shape, slots))
        lease.add_done_callback(partial(self._inbound.call_soon, self._on_lease_answered))
        return lease

    def _look_after_leases(self) -> None:
        self._leases.look()
        if self._leases.are_late:
            self._listener.on_room()  # gangs wait for it no longer
        if not self._closing:
            due = self._loop.time() + _LOOK_SECONDS
            self._looking = TimedCall(self._loop, due, self._look_after_leases)

    async def _lease(self, shape: Shape, slots: int) -> None:
        """Have a lease, and talk to its agent; in the executor's thread."""
        link = await self._cluster.lease(shape, slots)
        connection = self._links.get(link)
        if connection is None:
            connection = AgentConnection(link, self._runs, self._inbound.put)
            self._links[link] = connection
            self._inbound.put(connection, ["leased", shape, slots])
            self._serving[connection] = asyncio.ensure_future(self._serve(connection))
        else:
            self._inbound.put(connection, ["leased", shape, slots])

    async def _serve(self, connection: AgentConnection) -> None:
        try:
            await connection.serve()
        finally:
            del self._links[connection.link]
            try:
                await self._cluster.release(connection.link)
            finally:
                del self._serving[connection]

    def _on_lease_answered(self, asked: Future[None]) -> None:
        shape = self._leases.take(asked)
        if shape is not None and not asked.cancelled() and not self._closing:
            error = asked.exception()
            if error is not None:
                refusal = _as_pool_error(error, self._cluster.name)
                self._listener.on_refused(_kind_of(shape), refusal)
            else:
                self._leases.ask_again()  # its node may be lost by now
        self._left.look()

    # --- what comes from the executor's thread --------------------------------------------------

    def call_again(self) -> None:
        """Handle what has come, in case the callback that should do it was lost."""
        for asked in self._leases.answered():
            self._on_lease_answered(asked)
        looking = self._looking
        if looking is not None and looking.is_overdue(self._loop.time(), _LOOK_SECONDS):
            looking.cancel()
            self._look_after_leases()
        self._inbound.take_in_again()

    def _on_message(self, connection: AgentConnection, message: list[Any]) -> None:
        node = self._nodes.get(connection)
        match message:
            case ["leased", shape, slots]:
                self._on_leased(connection, shape, slots)
            case _ if node is None:
                pass
            case ["up", facts]:
                self._on_up(node, facts)
            case ["store", why]:
                self._on_store(node, why)
            case ["lost", why]:
                self._on_lost(node, why)
            case ["closed", why]:
                self._on_lost(node, why)
            case ["broken", why]:
                self._listener.on_broken(PoolError(f"on {node.name}: {why}"))
            case [what, token, *arguments]:
                worker = node.workers.get(token)
                if worker is not None:
                    self._on_changed(worker, what, *arguments)

    def _on_changed(self, worker: RemoteWorker, what: str, *arguments: Any) -> None:
        match what, arguments:
            case "reports", [data]:
                self._listener.on_reports(worker, worker.unpack(data))
            case "ending", [why]:
                worker.stop_reason = worker.stop_reason or why
            case "stopped", [how]:
                self._listener.on_stopped(worker, how)
            case "continued", []:
                self._listener.on_continued(worker)
            case "unsent", [attempt, why]:
                self._listener.on_reports(worker, _as_failed(worker, attempt, why))
            case "exited", [how, ended_with_others]:
                worker.ended_with_others = ended_with_others
                worker.where.post("gone", worker.token)
                self._forget(worker)
                self._listener.on_exit(worker, how)

    # --- nodes ----------------------------------------------------------------------------------

    def _on_leased(self, connection: AgentConnection, shape: Shape, slots: int) -> None:
        node = self._nodes.get(connection)
        if node is None:
            node = self._nodes[connection] = ClusterNode(connection, connection.link.node)
            if self._closing:
                node.post("close")
        node.slots[shape] += slots
        if node.is_up:
            self._listener.on_room()

    def _on_up(self, node: ClusterNode, facts: Mapping[str, Any]) -> None:
        self._silent_agents, node.facts = 0, facts
        refusal = _refusal(node.name, facts)
        if refusal:
            self._refuse(node, refusal)
        elif self._store:
            node.post("check_store", self._store, self._mark)
        else:
            self._on_store(node, "")

    def _on_store(self, node: ClusterNode, why: str) -> None:
        """The node reaches the store, or says why not.

        While others reach it, that may be an outage of a moment: the run goes on with those.
        """
        if why and any(other.is_up for other in self._nodes.values()):
            node.post("close")
            log.warning("a node is not used", node=node.name, why=why)
            return
        if why:
            self._refuse(node, f"on {node.name}: {why}")
            return
        node.is_up = True
        log.info("a node has joined", node=node.name, workers=node.slots.total(), **node.facts)
        self._listener.on_room()

    def _refuse(self, node: ClusterNode, why: str) -> None:
        node.post("close")
        self._listener.on_broken(ClusterError(why))

    def _on_lost(self, node: ClusterNode, why: str) -> None:
        """A node is gone, and its workers with it."""
        del self._nodes[node.connection]
        unheard = list(node.unheard_of())
        if not self._closing:
            _tell_of_loss(node, why, unheard)
            self._silent_agents += not node.facts
            if self._silent_agents < _FAILED_STARTS:
                self._leases.ask_again()
        for worker in list(node.workers.values()):
            self._forget(worker)
            worker.ended_with_others = True
            self._listener.on_exit(worker, f"was lost with its node {node.name}: {why}")
        if self._silent_agents >= _FAILED_STARTS and not self._closing:
            message = f"nodes of {self._cluster.name} end before they have said anything: {why}"
            self._listener.on_broken(PoolError(message))
        self._left.look()

    def _forget(self, worker: RemoteWorker) -> None:
        self._workers.pop(worker.token, None)
        worker.where.workers.pop(worker.token, None)

    def __repr__(self) -> str:
        return f"<ClusterExecutor {len(self._workers)} of {self.size} workers>"


def _refusal(node: str, facts: Mapping[str, Any]) -> str:
    """Why a node cannot be used; empty if it can."""
    ours = {"python": platform.python_version(), "asyncflow": VERSION}
    theirs = {name: str(facts.get(name)) for name in ours}
    if all(_minor(ours[name]) == _minor(theirs[name]) for name in ours):
        return ""
    there = f"Python {theirs['python']} and asyncflow {theirs['asyncflow']}"
    here = f"Python {ours['python']} and asyncflow {ours['asyncflow']}"
    return (
        f"{node} has {there}, and this program {here}: install the same minor version of Python "
        "and the same asyncflow on both, because values are pickled"
    )


def _minor(version: str) -> str:
    """The first two numbers of a version: those that say what is compatible."""
    return ".".join(version.split(".")[:2])


def _as_pool_error(error: BaseException, where: str) -> PoolError:
    if isinstance(error, PoolError):
        return error
    return ClusterError(f"{where} gives no lease: {type(error).__name__}: {error}")


def _kind_of(shape: Shape) -> Kind:
    """What the scheduler calls workers of a shape."""
    return None if shape == Shape() else shape


def _shape_of(kind: Kind) -> Shape:
    return Shape() if kind is None else cast("Shape", kind)


def _as_failed(worker: RemoteWorker, attempt: AttemptKey, why: str) -> list[ReportMessage]:
    """What a task inherits cannot be read: it has failed without having been sent."""
    name = f"{ClusterError.__module__}.{ClusterError.__qualname__}"
    message = f"the task could not be sent to its node: {why}"
    failed = Failed(attempt, 0.0, name, message, "", may_retry=True, spooled=(0, 0))
    reports: list[ReportMessage] = [Started(attempt), failed]
    for report in reports:
        worker.note(report)
    return reports


def _tell_of_loss(node: ClusterNode, why: str, unheard: list[str]) -> None:
    if not why:  # its lease was given back
        return
    if not unheard:
        log.warning("a node was lost", node=node.name, why=why)
        return
    named = ", ".join(islice(unheard, _NAMED_TASKS))
    more = len(unheard) - _NAMED_TASKS
    log.warning(
        "a node was lost; these tasks were sent to it and not heard of, and run again, "
        "although they may have begun there",
        node=node.name,
        why=why,
        tasks=named + (f" and {more} more" if more > 0 else ""),
    )
