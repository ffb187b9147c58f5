"""The protocol of a cluster: what an adapter to an engine such as Dask or Ray has to provide.

All coroutines here are awaited on an event loop of the executor's own, in a thread of its own, so
an adapter may hold clients of its engine on that loop. Nothing blocks that loop for long, because
the links to all nodes are served there.

On a node, the adapter makes an `asyncflow.workers.cluster.agent_thread.AgentThread` inside of what
the engine has placed (a task, an actor), and has the engine's RPC call its `push` and `poll`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Shape(NamedTuple):
    """What each worker of a lease needs of its node."""

    cpu: float = 1.0
    gpu: float = 0.0
    memory: float = 0.0
    """In MB (1,048,576 bytes); 0 for whatever there is."""
    extra: tuple[tuple[str, float], ...] = ()
    """Resources of the engine's own, by name, sorted."""

    def __str__(self) -> str:
        told = [f"{self.cpu:g} cpu"]
        told += [f"{self.gpu:g} gpu"] * bool(self.gpu)
        told += [f"{self.memory:g} MB of memory"] * bool(self.memory)
        return ", ".join([*told, *(f"{amount:g} {name}" for name, amount in self.extra)])


class Link(Protocol):
    """The way to one agent. `push` and `poll` may wait at the same time, each once at a time.

    Both may be repeated with the same arguments when it is unknown whether the agent got them: the
    agent recognizes that.
    """

    @property
    def node(self) -> str:
        """The name of the node, for events and messages."""

    async def push(self, batch: bytes) -> None:
        """Have the agent take a batch in.

        Raises:
            AgentGoneError: The agent is gone for certain, and its workers with it.
            Exception: Any other: it is unknown whether the agent has the batch.
        """

    async def poll(self, received: int) -> bytes:
        """The agent's next batch; empty if there is none within a second.

        `received` is the number of the last batch that has arrived.

        Raises:
            AgentGoneError: The agent is gone for certain, and its workers with it.
            Exception: Any other: no answer came.
        """


class Cluster(Protocol):
    """A cluster, as its engine gives access to it."""

    @property
    def name(self) -> str:
        """What and where it is, for messages: `Dask at tcp://10.0.0.1:8786`."""

    @property
    def places_resources(self) -> bool:
        """Whether leases have what their shape asks for; otherwise only `Shape()` is asked for."""

    async def open(self) -> None:
        """Connect.

        Raises:
            ClusterError: It cannot be reached or used; the message says why, and what to do.
        """

    async def lease(self, shape: Shape, slots: int) -> Link:
        """Have room for so many workers on one node, and an agent there. Waits for the room.

        It waits as long as the cluster may get the room, but at most 30 s if no node could ever
        have it.

        The same link may be returned again: then its agent hosts that many workers more.

        Cancelled: the request is withdrawn.

        Raises:
            ClusterError: It cannot be had; the message names the request.
        """

    async def release(self, link: Link) -> None:
        """Give all leases of a link back, whose agent has ended or is lost.

        Never raises because the node is gone.
        """

    async def close(self) -> None:
        """Give everything back, and disconnect. Harmless when repeated."""
