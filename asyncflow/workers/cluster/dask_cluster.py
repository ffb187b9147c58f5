"""A Dask cluster, for `ClusterExecutor`: a lease is a long-running task.

It uses a client of its own, on the executor's loop. An agent is reached by the Dask worker's RPC,
directly if this machine can connect to the worker, else through the scheduler. Dask is imported
when the cluster is opened.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from asyncflow.errors import AgentGoneError, ClusterError
from asyncflow.workers.cluster.dask_lease import POLL, PUSH, RELEASE, checked, hold_lease
from asyncflow.workers.cluster.port_check import check_dask, check_listens

if TYPE_CHECKING:
    from asyncflow.workers.cluster.interface import Link, Shape

_CONNECT_SECONDS: Final = 10.0
_DIRECT_SECONDS: Final = 3.0  # for the first direct connection to a Dask worker
_GIVE_BACK_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 4.0  # between looks for a node that could have a lease
MISSING_LOOKS: Final = 5  # in a row without one, until the request is refused


class DaskCluster:
    """Leases of a Dask cluster."""

    places_resources = True

    def __init__(self, address: str | None, *, security: Any = None, workers: int = 1) -> None:
        """Connect to nothing yet.

        Args:
            address: The scheduler's; None for a cluster on this machine, which ends with this one.
            security: Dask's, for the connection.
            workers: How many workers a cluster on this machine has.
        """
        self._address, self._security, self._workers = address, security, workers
        self._driver = uuid4().hex
        self._topic = f"asyncflow-{self._driver}"
        self._numbers = count(1)
        self._local: Any = None
        self._client: Any = None
        self._links: dict[str, DaskLink] = {}  # by the address of the Dask worker
        self._answers: dict[str, asyncio.Future[DaskLink]] = {}  # of the leases that are asked for

    @property
    def name(self) -> str:
        """Dask, and the scheduler's address."""
        return f"Dask at {self._address}" if self._address else "the local Dask cluster"

    async def open(self) -> None:
        """Connect to the scheduler, or start a local cluster.

        Raises:
            ClusterError: Dask is not installed, or the scheduler does not answer.
        """
        try:
            import distributed
        except ImportError as error:
            message = (
                f"Dask cannot be imported ({error}): install it with "
                "pip install 'asyncflow-engine[dask]'"
            )
            raise ClusterError(message) from error
        await self._check_answers()
        try:
            if self._address is None:
                self._local = await distributed.LocalCluster(
                    n_workers=self._workers,
                    threads_per_worker=1,
                    dashboard_address=":0",  # the usual port may be taken
                    silence_logs=logging.CRITICAL,  # it complains when it is ended
                    asynchronous=True,
                )
            self._client = await distributed.Client(
                self._address or self._local,
                asynchronous=True,
                security=self._security,
                set_as_default=False,
                timeout=_CONNECT_SECONDS,
                name="asyncflow",
            )
        except (OSError, TimeoutError, ValueError, RuntimeError, TypeError) as error:
            message = (
                f"{self.name} does not answer: {error}; check the address, and whether a scheduler "
                "runs there and this machine may connect to it"
            )
            raise ClusterError(message) from error
        self._client.subscribe_topic(self._topic, self._on_lease)
        self._client.subscribe_topic("all", self._on_change)

    async def _check_answers(self) -> None:
        """Refuse an address at which no scheduler answers, which Dask may wait for without end."""
        from distributed.comm.addressing import parse_address

        # Dask's settings say which protocol an address has that names none.
        protocol, place = parse_address(self._address or "")
        host, _, port = place.rpartition(":")
        if not (host and port.isdecimal()) or protocol not in {"tcp", "tls", "ws", "wss"}:
            return
        is_plain = protocol == "tcp" and self._security is None
        await (check_dask if is_plain else check_listens)(self.name, host.strip("[]"), int(port))

    # --- what the scheduler tells ---

    def _on_lease(self, event: tuple[float, dict[str, str]]) -> None:
        """A lease is up."""
        facts = event[1]
        answer = self._answers.get(facts["lease"])
        if answer is None or answer.done():
            return  # it was withdrawn, or Dask runs it again elsewhere: it gets no polls, and ends
        address = facts["address"]
        link = self._links.get(address)
        if link is None or link.gone.done():
            name = facts["name"]
            node = address.partition("://")[2] if name == address or name.isdigit() else name
            link = self._links[address] = DaskLink(self._client, self._driver, address, node)
        answer.set_result(link)

    def _on_change(self, event: tuple[float, Any]) -> None:
        """A Dask worker has come or gone."""
        facts = event[1]
        if isinstance(facts, dict) and facts.get("action") == "remove-worker":
            link = self._links.get(str(facts.get("worker")))
            if link is not None and not link.gone.done():
                link.gone.set_result(None)

    # --- leases ---

    async def lease(self, shape: Shape, slots: int) -> Link:
        """One slot of a Dask worker that has what the shape asks for.

        Raises:
            ClusterError: Its task has failed.
        """
        del slots  # a task has one
        lease = f"asyncflow-lease-{self._driver[:8]}-{next(self._numbers)}"
        answer = self._answers[lease] = asyncio.get_running_loop().create_future()
        task = self._client.submit(
            hold_lease,
            self._driver,
            lease,
            self._topic,
            key=lease,
            pure=False,
            retries=0,
            resources=_resources_of(shape),
        )
        ended = asyncio.ensure_future(_ended(task))
        missing = asyncio.ensure_future(self._missing(shape))
        try:
            await asyncio.wait([answer, ended, missing], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                why = missing.result() if missing.done() else ended.result()
                answer.set_exception(ClusterError(why))
            link: DaskLink = answer.result()
        except BaseException:
            await self._withdraw(task)
            raise
        finally:
            ended.cancel()
            missing.cancel()
            del self._answers[lease]
        link.leases[lease] = task
        return link

    async def _missing(self, shape: Shape) -> str:
        """Return once no worker could ever have such a lease; the reason."""
        asked, looks = _resources_of(shape), 0
        while asked is not None:
            await asyncio.sleep(LOOK_SECONDS)
            facts = await self._client.scheduler.identity(n_workers=-1)
            there = [worker["resources"] for worker in facts["workers"].values()]
            if not there or any(_has(each, asked) for each in there):
                looks = 0
            else:
                looks += 1
            if looks >= MISSING_LOOKS:
                told = " ".join(f"{name}={amount:g}" for name, amount in asked.items())
                return (
                    f"no worker of {self.name} has {shape}, which @resources asks for: start some "
                    f"with --resources '{told}'"
                )
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never

    async def _withdraw(self, task: Any) -> None:
        """Have Dask forget a task, so that it is not run, or not again."""
        with suppress(Exception):  # the scheduler may be gone
            await asyncio.wait_for(task.cancel(), _GIVE_BACK_SECONDS)

    async def release(self, link: Link) -> None:
        """Give all leases of a Dask worker back."""
        assert isinstance(link, DaskLink)  # noqa: S101 - it was made here
        if self._links.get(link.address) is link:
            del self._links[link.address]
        while link.leases:
            lease, task = link.leases.popitem()
            await self._withdraw(task)  # first, so that it does not run again elsewhere
            if not link.gone.done():
                with suppress(Exception):  # the node may be gone
                    await asyncio.wait_for(link.release(lease), _GIVE_BACK_SECONDS)

    async def close(self) -> None:
        """Give everything back, and disconnect; a local cluster ends."""
        for link in list(self._links.values()):
            await self.release(link)
        if self._client is not None:
            client, self._client = self._client, None
            for topic in (self._topic, "all"):
                with suppress(Exception):  # the scheduler may be gone
                    client.unsubscribe_topic(topic)
            await client.close()
        if self._local is not None:
            local, self._local = self._local, None
            await local.close()

    def __repr__(self) -> str:
        return f"<DaskCluster {self.name}>"


class DaskLink:
    """The way to the agent in one Dask worker."""

    def __init__(self, client: Any, driver: str, address: str, node: str) -> None:
        self.node: Final = node
        """The Dask worker's name, or its address."""
        self.address: Final = address
        """The address of the Dask worker."""
        self.gone: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        """Done when the scheduler has removed the Dask worker."""
        self.leases: dict[str, Any] = {}
        """The tasks that hold the leases there, by key."""
        self._client, self._driver = client, driver
        self._is_direct: bool | None = None  # unknown until a request has been answered

    async def push(self, batch: bytes) -> None:
        """Have the agent take a batch in."""
        checked(await self._unless_gone(PUSH, batch=batch))

    async def poll(self, received: int) -> bytes:
        """The agent's next batch."""
        return checked(await self._unless_gone(POLL, received=received))

    async def release(self, lease: str) -> None:
        """End one of its leases."""
        await self._ask(RELEASE, lease=lease)

    async def _unless_gone(self, verb: str, **arguments: Any) -> Any:
        """The answer, unless the Dask worker is removed before it comes."""
        asked = asyncio.ensure_future(self._ask(verb, **arguments))
        try:
            await asyncio.wait([asked, self.gone], return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise AgentGoneError("Dask has removed its worker")
            return asked.result()
        finally:
            asked.cancel()

    async def _ask(self, verb: str, **arguments: Any) -> Any:
        if self._is_direct is not False:
            try:
                patience = None if self._is_direct else _DIRECT_SECONDS
                answer = await asyncio.wait_for(self._ask_directly(verb, arguments), patience)
            except (OSError, TimeoutError):
                if self._is_direct:  # it has worked before
                    raise
                self._is_direct = False
            else:
                self._is_direct = True
                return answer
        message = {"op": verb, "driver": self._driver, **arguments}
        return await self._client.scheduler.proxy(worker=self.address, msg=message)

    async def _ask_directly(self, verb: str, arguments: dict[str, Any]) -> Any:
        rpc = self._client.rpc(self.address)
        return await getattr(rpc, verb)(driver=self._driver, **arguments)

    def __repr__(self) -> str:
        return f"<DaskLink to {self.node}>"


def _resources_of(shape: Shape) -> dict[str, float] | None:
    """What to ask Dask for; nothing but a slot for a shape that needs no more than that."""
    asked = dict(shape.extra)
    if shape.cpu > 1:
        asked["CPU"] = shape.cpu
    if shape.gpu:
        asked["GPU"] = shape.gpu
    if shape.memory:
        asked["MEMORY"] = shape.memory * (1 << 20)
    return asked or None


def _has(there: dict[str, float], asked: dict[str, float]) -> bool:
    """Whether a Dask worker's resources are enough."""
    return all(there.get(name, 0.0) >= amount for name, amount in asked.items())


async def _ended(task: Any) -> str:
    """Wait until the task of a lease has ended; why it did so without being up."""
    error = await task.exception()
    if isinstance(error, ModuleNotFoundError):
        return (
            f"a Dask worker cannot host workers: {error}; install the same asyncflow there as here"
        )
    return f"a lease has ended on a Dask worker: {type(error).__name__}: {error}"
