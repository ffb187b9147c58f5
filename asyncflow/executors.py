"""Where an engine runs its tasks, other than on its own machine.

    async with Engine(executor=Dask("tcp://scheduler:8786")) as engine:
        await engine.run(Flow)

    async with Engine(executor=Ray("auto")) as engine:
        await engine.run(Flow)

Importing this module imports no other engine; opening an `Engine` with one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asyncflow.workers.cluster.dask_cluster import DaskCluster
from asyncflow.workers.cluster.executor import ClusterExecutor
from asyncflow.workers.cluster.ray import RayCluster, is_connected

if TYPE_CHECKING:
    from pathlib import Path

    from asyncflow.workers.interface import WorkerListener

_MOST_WORKERS: Final = 1000  # of a cluster that says no number


@dataclass(frozen=True, slots=True)
class Dask:
    """Runs tasks on a Dask cluster; without arguments, on one that it starts on this machine.

    Each worker of the engine holds a slot of a Dask worker (a thread), with the resources that the
    steps' `@resources` name. Store and Dask workers: all must see the same store, and have the same
    minor version of Python and the same asyncflow installed as this program.
    """

    cluster: Any = None
    """A `distributed.Client`, or the address of a scheduler."""
    workers: int | None = None
    """How many workers there may be at a time. By default as many as the cluster has room for; on a
    cluster that is started here, those of the engine's settings."""

    idle_seconds: float = 60.0
    """For how long a node may have no task until its slots are given back to the cluster."""

    def __call__(
        self, listener: WorkerListener, *, size: int, scratch: Path, store: str = ""
    ) -> ClusterExecutor:
        """An executor for an engine, which has not been started."""
        del scratch  # of this machine; the nodes have their own
        if self.cluster is None:
            workers = self.workers or size
            return ClusterExecutor(
                DaskCluster(None, workers=workers), listener, workers=workers, store=store
            )
        address, security = self.cluster, None
        if not isinstance(address, str):
            address, security = address.scheduler.address, address.security
        return ClusterExecutor(
            DaskCluster(address, security=security),
            listener,
            workers=self.workers or _MOST_WORKERS,
            idle_seconds=self.idle_seconds,
            store=store,
        )


@dataclass(frozen=True, slots=True)
class Ray:
    """Runs tasks on a Ray cluster; without an address, on one that it starts on this machine.

    If the program has connected to Ray with `ray.init`, that cluster is used. Each worker of the
    engine is in an actor of its own, with the CPUs, GPUs and memory that the steps' `@resources`
    name. All nodes must see the same store, and have the same minor version of Python and the same
    asyncflow installed as this program.
    """

    address: str | None = None
    """`auto` for the cluster that this machine belongs to, `HOST:PORT` of a head whose cluster it
    belongs to, or `ray://HOST:PORT` from anywhere."""
    workers: int | None = None
    """How many workers there may be at a time. By default as many as the cluster has room for; on a
    cluster that is started here, those of the engine's settings."""
    idle_seconds: float = 60.0
    """For how long a worker may have no task until its actor is given back to the cluster."""

    def __call__(
        self, listener: WorkerListener, *, size: int, scratch: Path, store: str = ""
    ) -> ClusterExecutor:
        """An executor for an engine, which has not been started."""
        del scratch  # of this machine; the nodes have their own
        starts_here = self.address is None and not is_connected()
        workers = self.workers or (size if starts_here else _MOST_WORKERS)
        return ClusterExecutor(
            RayCluster(self.address, cpus=workers),
            listener,
            workers=workers,
            idle_seconds=self.idle_seconds,
            store=store,
        )


__all__ = ["Dask", "Ray"]
