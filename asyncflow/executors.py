"""Where an engine runs its tasks, other than on its own machine.

    async with Engine(executor=Dask("tcp://scheduler:8786")) as engine:
        await engine.run(Flow)

Importing this module imports no other engine; opening an `Engine` with one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asyncflow.workers.cluster.dask_cluster import DaskCluster
from asyncflow.workers.cluster.executor import ClusterExecutor

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

    def __call__(self, listener: WorkerListener, *, size: int, scratch: Path) -> ClusterExecutor:
        """An executor for an engine, which has not been started."""
        del scratch  # of this machine; the nodes have their own
        if self.cluster is None:
            workers = self.workers or size
            return ClusterExecutor(DaskCluster(None, workers=workers), listener, workers=workers)
        address, security = self.cluster, None
        if not isinstance(address, str):
            address, security = address.scheduler.address, address.security
        return ClusterExecutor(
            DaskCluster(address, security=security),
            listener,
            workers=self.workers or _MOST_WORKERS,
            idle_seconds=self.idle_seconds,
        )


__all__ = ["Dask"]
