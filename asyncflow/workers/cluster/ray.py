"""Leases of a Ray cluster: each is an actor that holds an agent.

Ray places the actor by the resources of its workers, and counts it as demand while it waits. An
actor is never started again, and ends with the program that asked for it. Its calls fail as soon as
Ray knows that it is gone.

Ray itself is imported when the cluster is opened, or by its processes, and never before.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support import log
from asyncflow.errors import AgentGoneError, ClusterError
from asyncflow.workers.cluster.agent_thread import AgentThread
from asyncflow.workers.cluster.port_check import check_grpc, check_listens
from asyncflow.workers.cluster.ray_autoscaler import may_come

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asyncflow.workers.cluster.interface import Link, Shape

CONNECT_SECONDS: Final = 60.0
"""How long Ray may take to connect, or to start a cluster on this machine: usually 15 s."""
INFEASIBLE_SECONDS: Final = 20.0
"""How long a request may be larger than every node, before it is an error: nodes may be joining."""
_KILL_SECONDS: Final = 10.0  # for Ray to end an actor, which it does not while its head is silent
_LOOK_SECONDS: Final = 1.0
_LEASE_TRIES: Final = 4  # of which some end with the node that Ray had chosen
_MB: Final = 1 << 20
_INSTALL: Final = "pip install 'asyncflow-engine[ray]'"


class _ActorLostError(ClusterError):
    """An actor has died, and not by an error of its own, before its agent was there."""


class AgentActor:
    """What Ray runs on a node: an agent, whose methods answer the driver."""

    def __init__(self) -> None:
        self._agent = AgentThread()

    async def where(self) -> str:
        """The name of the node, once the actor is there."""
        return socket.gethostname()

    async def push(self, batch: bytes) -> None:
        """Have the agent take a batch in."""
        await self._agent.push(batch)

    async def poll(self, received: int) -> bytes:
        """The agent's next batch."""
        return await self._agent.poll(received)


class RayLink:
    """The way to the agent in one actor."""

    def __init__(self, ray: Any, actor: Any, node: str) -> None:
        self.actor: Final = actor
        self._ray = ray
        self._node = node

    @property
    def node(self) -> str:
        """The name of the actor's machine."""
        return self._node

    async def push(self, batch: bytes) -> None:
        """Have the agent take a batch in."""
        await self._answer(self.actor.push.remote(batch))

    async def poll(self, received: int) -> bytes:
        """The agent's next batch."""
        answer: bytes = await self._answer(self.actor.poll.remote(received))
        return answer

    async def _answer(self, asked: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return await asked
        except errors.ActorUnavailableError:  # it may come back
            raise
        except errors.RayActorError as error:
            raise AgentGoneError(_first_line(error)) from error

    def __repr__(self) -> str:
        return f"<RayLink to {self._node}>"


class RayCluster:
    """A Ray cluster, or one that is started on this machine and ends with this object."""

    places_resources = True
    """Whether it gives workers what `@resources` asks for."""

    def __init__(self, address: str | None, *, cpus: float = 1.0) -> None:
        """Prepare it.

        Args:
            address: `auto` for the cluster that this machine belongs to, `HOST:PORT` for one whose
                head is there, `ray://HOST:PORT` for one without a node here. None for the one that
                the program has connected to, else for one that is started here.
            cpus: How many CPUs a cluster that is started here offers to its workers.
        """
        self._address, self._cpus = address, cpus
        self._is_ours = False  # whether this object has connected the process
        self._ray: Any = None
        self._thread = RayThread()
        self._leases: set[RayLink] = set()
        self._coming: set[Any] = set()  # actors that were asked for, and are not there

    @property
    def name(self) -> str:
        """What and where it is."""
        return f"Ray at {self._address}" if self._address else "Ray on this machine"

    async def open(self) -> None:
        """Connect, or start a cluster.

        Raises:
            ClusterError: Ray is not installed, or no cluster answers, or it refuses this program.
        """
        self._thread = RayThread()  # one for each connection
        try:
            self._ray = await self._thread.call(_import_ray, CONNECT_SECONDS)
        except ImportError as error:
            message = f"Ray cannot be imported ({error}): install it with {_INSTALL}"
            raise ClusterError(message) from error
        if self._ray.is_initialized():
            self._check_is_this()
        else:
            await self._connect()
        self._actors = self._ray.remote(AgentActor)

    def _check_is_this(self) -> None:
        """Use the connection that the program has, if it is to the same cluster."""
        if self._address in {None, "auto"}:
            return
        there = self._ray.get_runtime_context().gcs_address
        if self._address != there:
            message = (
                f"this program is connected to Ray at {there}: leave the address out, or call "
                f"ray.shutdown() before a flow is run on Ray at {self._address}"
            )
            raise ClusterError(message)

    async def _connect(self) -> None:
        await self._check_answers()
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address is None:
            options |= {"address": "local", "num_cpus": self._cpus, "include_dashboard": False}
        else:
            options["address"] = self._address
        try:
            await self._thread.call(lambda: _init(self._ray, options), CONNECT_SECONDS)
        except Exception as error:
            raise self._refusal(error) from error
        self._is_ours = True

    async def _check_answers(self) -> None:
        """Refuse an address at which no Ray answers: Ray would try a minute, and write warnings."""
        host, port = _host_and_port(self._address or "")
        if port:
            has_tls = os.environ.get("RAY_USE_TLS", "0").lower() in {"1", "true"}
            await (check_listens if has_tls else check_grpc)(self.name, host, port)

    def _refusal(self, error: Exception) -> ClusterError:
        """Why Ray could not be connected to, and what to do."""
        said = _first_line(error)
        if self._address is None:
            return ClusterError(f"Ray cannot be started on this machine: {said}")
        if self._address == "auto" and isinstance(error, ConnectionError):
            return ClusterError(
                f"no Ray cluster is running on this machine ({said}): start one, name its address, "
                "or leave the address out to have one started for the run"
            )
        if isinstance(error, ConnectionError | TimeoutError):
            if isinstance(error, TimeoutError):
                said = f"no answer within {CONNECT_SECONDS:g} s"
            return ClusterError(
                f"{self.name} listens, but refuses this program ({said}): the token of one of them "
                "may be wrong (RAY_AUTH_TOKEN, or the file ~/.ray/auth_token, with "
                "RAY_AUTH_MODE=token), or it is not the port of a Ray head"
            )
        if "mismatch" in said:  # Ray names both versions in the lines that follow
            said = " ".join(str(error).split())
        return ClusterError(f"{self.name} cannot be used: {said}")

    # --- leases ---------------------------------------------------------------------------------

    async def lease(self, shape: Shape, slots: int) -> Link:
        """An actor with room for so many workers.

        One that dies with its node, or its process, before it is there is asked for again.

        Raises:
            ClusterError: No node can ever have it, or it ends again and again.
        """
        for _ in range(_LEASE_TRIES - 1):
            try:
                return await self._lease(shape, slots)
            except _ActorLostError as error:
                log.warning("an actor was lost before it was there", why=str(error))
                await asyncio.sleep(_LOOK_SECONDS)
        return await self._lease(shape, slots)

    async def _lease(self, shape: Shape, slots: int) -> Link:
        wanted = _request(shape, slots)
        actor = self._actors.options(**wanted, max_restarts=0, max_task_retries=0).remote()
        self._coming.add(actor)
        coming = asyncio.ensure_future(_awaited(actor.where.remote()))
        try:
            node = await self._wait_for(coming, shape, slots)
        except BaseException:
            coming.cancel()
            if actor in self._coming:  # otherwise `close` ends it
                self._coming.discard(actor)
                await self._kill(actor)
            raise
        self._coming.discard(actor)
        link = RayLink(self._ray, actor, node)
        self._leases.add(link)
        return link

    async def _wait_for(self, coming: asyncio.Future[str], shape: Shape, slots: int) -> str:
        too_large = 0.0
        while True:
            done, _ = await asyncio.wait([coming], timeout=_LOOK_SECONDS)
            if done:
                try:
                    return coming.result()
                except self._ray.exceptions.RayError as error:
                    raise self._cannot_start(error, shape, slots) from error
            largest = await self._thread.call(lambda: self._why_too_large(shape, slots), 30.0)
            too_large = too_large + _LOOK_SECONDS if largest else 0.0
            if too_large >= INFEASIBLE_SECONDS:
                message = (
                    f"no node of {self.name} has {_told(shape, slots)}: {largest}. Ask for less "
                    "with @resources, or add such a node"
                )
                raise ClusterError(message)

    def _why_too_large(self, shape: Shape, slots: int) -> str:
        """What the nodes have, if none could ever hold the request, and none that can may come."""
        nodes = [each["Resources"] for each in self._ray.nodes() if each["Alive"]]
        need = _amounts(shape, slots)
        if any(all(node.get(name, 0.0) >= need[name] for name in need) for node in nodes):
            return ""
        gcs_address = self._ray.get_runtime_context().gcs_address
        if may_come(gcs_address, need):
            return ""
        most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in need}
        told = ", ".join(f"{_amount(name, most[name])}" for name in need)
        return f"its {len(nodes)} nodes have at most {told}, and no autoscaler can add a larger one"

    def _cannot_start(self, error: Exception, shape: Shape, slots: int) -> ClusterError:
        errors = self._ray.exceptions
        said = _first_line(error)
        if isinstance(error, errors.ActorUnschedulableError):
            return ClusterError(f"no node of {self.name} has {_told(shape, slots)}: {said}")
        if "No module named 'asyncflow" in str(error):
            return ClusterError(
                f"a node of {self.name} has no asyncflow: install the same version there as here, "
                "or name it in the runtime_env of ray.init"
            )
        message = f"a lease of {self.name} ended before its agent was there: {said}"
        is_lost = isinstance(error, errors.ActorDiedError | errors.ActorUnavailableError)
        if is_lost and "creation task" not in str(error):  # else it has failed by itself
            return _ActorLostError(message)
        return ClusterError(message)

    async def release(self, link: Link) -> None:
        """End an actor, if it has not ended."""
        assert isinstance(link, RayLink)  # noqa: S101 - it was made here
        if link in self._leases:  # otherwise `close` ends it
            self._leases.discard(link)
            await self._kill(link.actor)

    async def _kill(self, actor: Any) -> None:
        """End an actor, later if the head of the cluster does not answer now.

        Ray blocks its caller while that is so, which must not be the thread of all links.
        """
        with suppress(Exception):  # it has ended, or the cluster is gone
            kill = partial(self._ray.kill, actor, no_restart=True)
            await self._thread.call(kill, _KILL_SECONDS, even_late=True)

    async def close(self) -> None:
        """End all actors; disconnect, if the program was not connected before."""
        actors = [*self._coming, *(link.actor for link in self._leases)]
        self._coming.clear()
        self._leases.clear()
        try:
            await asyncio.gather(*map(self._kill, actors))
            if self._is_ours:
                self._is_ours = False
                await self._thread.call(self._ray.shutdown, CONNECT_SECONDS)
        finally:
            self._thread.end()

    def __repr__(self) -> str:
        return f"<RayCluster {self._address or 'on this machine'}: {len(self._leases)} leases>"


def is_connected() -> bool:
    """Whether this program has connected to a Ray cluster by itself."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _import_ray() -> Any:
    with _same_variables():
        import ray
        import ray.exceptions
    return ray


def _init(ray: Any, options: Mapping[str, Any]) -> None:
    with _same_variables():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody has agreed to send any
        ray.init(**options)


@contextmanager
def _same_variables() -> Iterator[None]:
    """Leave the variables of this process as they are: runs take along what changes."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


async def _awaited(reference: Any) -> Any:
    return await reference


class RayThread:
    """The thread in which Ray's blocking functions are called.

    It lives as long as the connection: the kernel ends the processes of a cluster that was started
    here when the thread that has started them ends. Nobody waits for it at the end of the program.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._is_running = self._has_ended = False

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    async def call(
        self, function: Callable[[], Any], seconds: float, *, even_late: bool = False
    ) -> Any:
        """What the function returns.

        `even_late` calls it although nobody waits any more. Otherwise it is not called then:
        another connection of the program may have begun, which a late `shutdown` would end.

        Raises:
            TimeoutError: It takes longer. If it has begun, it goes on.

        Cancelled: as with `TimeoutError`.
        """
        done: Future[Any] = Future()

        def work() -> None:
            if not done.set_running_or_notify_cancel() and not even_late:
                return
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits
                if not done.cancelled():
                    done.set_exception(error)
            else:
                if not done.cancelled():
                    done.set_result(result)

        self._work.put(work)
        if not self._is_running:
            self._is_running = True
            Thread(target=self._run, name="asyncflow-ray", daemon=True).start()
        if self._has_ended:
            self.end()  # this call was late: nobody else ends the thread
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(asyncio.wrap_future(done))
        finally:
            done.cancel()  # without effect once it has begun

    def end(self) -> None:
        """Let it end, once all that somebody waits for, or that may be late, is done."""
        self._has_ended = True
        if self._is_running:
            self._is_running = False
            self._work.put(None)


def _host_and_port(address: str) -> tuple[str, int]:
    """Where to connect to; port 0 for an address that only Ray understands."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdecimal() else ("", 0)


def _amounts(shape: Shape, slots: int) -> Mapping[str, float]:
    """A request as Ray's nodes count it."""
    needed = {"CPU": shape.cpu, "GPU": shape.gpu, "memory": shape.memory * _MB, **dict(shape.extra)}
    return {name: each * slots for name, each in needed.items() if each}


def _request(shape: Shape, slots: int) -> dict[str, Any]:
    """A request as an actor's options."""
    needed = dict(_amounts(shape, slots))
    return {
        "num_cpus": needed.pop("CPU", 0),
        "num_gpus": needed.pop("GPU", 0),
        "memory": int(needed.pop("memory", 0)) or None,
        "resources": needed or None,
    }


def _amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / _MB:.0f} MB of memory"
    return f"{amount:g} {name}"


def _told(shape: Shape, slots: int) -> str:
    return str(shape) if slots == 1 else f"{slots} times {shape}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
