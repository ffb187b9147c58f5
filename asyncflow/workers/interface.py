"""The protocol of an executor: where tasks run, as the scheduler sees it.

An executor starts workers, passes orders to them, and tells its listener what they report. How it
reaches a worker is its own business: the scheduler knows no process, signal or file of a worker.
The default executor of an engine is `asyncflow.workers.local.pool`.

Only `start` and `close` wait. A slow operation is reported when it is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from asyncflow._quick_classes import NamedTuple
from asyncflow.errors import PoolError

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from asyncflow.workers.messages import AttemptKey, OrderMessage, ReportMessage


Kind: TypeAlias = "Hashable"
"""What distinguishes workers for a step from others; None for those of most steps."""


class Ahead(NamedTuple):
    """How much a worker gets in advance while tasks are short: it should never wait for orders."""

    seconds: float
    """How long its `def` tasks should take together."""
    tasks: int
    """How many they are at most."""
    patience: float = 0.1
    """For how many seconds they wait behind a task that takes long, until other workers get them.
    """


AHEAD: Final = Ahead(0.02, 128)
"""Of a worker beside the engine: some ten times a journal write, and packets that a socket takes
with ease. So many of the shortest tasks last for longer than their reports wait to be read."""


class NotNowError(PoolError):
    """No worker can be started at this moment; `WorkerListener.on_room` says when one can."""


class WorkerLink(Protocol):
    """A worker as the scheduler needs it."""

    stop_reason: str
    """Why it should end; empty while it may get tasks."""
    ended_with_others: bool
    """Whether it has ended because what had started it is gone: that says nothing of the worker."""

    @property
    def takes_several(self) -> bool:
        """Whether it takes `StartItems`."""

    @property
    def ahead(self) -> Ahead:
        """How much it gets in advance; it may change."""

    @property
    def name(self) -> str:
        """Which worker it is and where, for people: `process 4711`."""

    @property
    def node(self) -> str:
        """The name of the machine where it is, for events; empty for the engine's own."""

    @property
    def pid(self) -> int:
        """Its process id at the place where it runs, for events and logs; 0 while unknown."""

    @property
    def is_up(self) -> bool:
        """Whether it has started; orders can be sent before."""

    @property
    def is_heard(self) -> bool:
        """Whether its place answers now: while it does not, a silent worker may be at work."""

    @property
    def is_idle(self) -> bool:
        """Whether it has no attempt: all that it was sent have ended, or were given back."""

    def send(self, order: OrderMessage) -> None:
        """Send an order, without waiting."""

    def take_back(self) -> None:
        """Take back the tasks that it has not received; each is reported as `GaveBack`."""

    def ask_to_stop(self, attempt: AttemptKey, why: str, *, is_late: bool = False) -> None:
        """End the attempt soon, if it is the one that the worker runs and has not ended by now.

        `is_late` tells the worker that the time of the attempt is over; else its run is ending.

        For attempts that have the worker to themselves: those of `def` steps, and those that import
        their flow. Async attempts are sent a `CancelTask` instead. Tasks that the worker has not
        received are taken back.
        """

    def destroy(self, why: str, attempt: AttemptKey | None = None) -> None:
        """End the worker at once, with everything that its steps have started.

        With `attempt`, only if it is still the one that the worker runs, as in `ask_to_stop`.
        """

    def pause(self) -> None:
        """Report nothing of it for now, so that it has to wait in the end."""

    def resume(self) -> None:
        """Report again."""


class WorkerListener(Protocol):
    """Is told what workers do."""

    def on_reports(self, worker: WorkerLink, reports: Sequence[ReportMessage]) -> None:
        """A worker has reported something."""

    def on_exit(self, worker: WorkerLink, how: str) -> None:
        """A worker is gone; all its reports came before."""

    def on_stopped(self, worker: WorkerLink, how: str) -> None:
        """A worker was stopped by a signal such as SIGSTOP."""

    def on_continued(self, worker: WorkerLink) -> None:
        """A stopped worker goes on."""

    def on_room(self) -> None:
        """More workers may be started than before."""

    def on_refused(self, kind: Kind, error: PoolError) -> None:
        """There will be no workers of a kind."""

    def on_broken(self, error: PoolError) -> None:
        """No worker can be started any more."""


class Executor(Protocol):
    """Where tasks run."""

    @property
    def size(self) -> int:
        """How many workers there may be at a time; the scheduler starts more for a large gang.

        It may change. While it is 0, no worker can be started.
        """

    @property
    def workers(self) -> Collection[WorkerLink]:
        """The present workers, in the order of their start."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables with which its workers begin; known once it has started."""

    @property
    def places_resources(self) -> bool:
        """Whether it has workers for what `@resources` asks for: several kinds.

        Otherwise all workers are alike, and the scheduler counts the resources of this machine.
        """

    def kind_of(self, cpu: float, gpu: float, memory: float) -> Kind:
        """The kind of worker for tasks that need so much; memory in MB, 0 for what is not asked."""

    def size_of(self, kind: Kind) -> int:
        """How many workers of a kind there may be at a time."""

    def is_growing(self, kind: Kind) -> bool:
        """Whether there may be more workers of a kind soon."""

    def wish(self, wanted: Mapping[Kind, int]) -> None:
        """So many more workers of each kind would have work now; of others none."""

    async def start(self) -> None:
        """Get ready to start workers.

        Raises:
            PoolError: No worker can be started.
        """

    def start_worker(self, kind: Kind = None) -> WorkerLink:
        """Start one more worker of a kind; orders can be sent to it at once.

        Raises:
            PoolError: It cannot be started now.
        """

    def suspended(self) -> AbstractContextManager[None]:
        """Stop all workers within the block, in which this process may be stopped."""

    async def close(self) -> None:
        """End all workers, and return when none is left. Harmless when repeated.

        Cancelled: the workers end all the same; only the wait is shortened.
        """


class AlikeWorkers:
    """For an executor whose workers are all alike, and as many as its size says."""

    size: int
    """How many workers there may be at a time."""
    places_resources = False
    """It counts no resources."""

    def kind_of(self, cpu: float, gpu: float, memory: float) -> Kind:
        """The only kind."""
        del cpu, gpu, memory
        return None

    def size_of(self, kind: Kind) -> int:
        """How many workers there may be at a time."""
        del kind
        return self.size

    def is_growing(self, kind: Kind) -> bool:
        """No."""
        del kind
        return False

    def wish(self, wanted: Mapping[Kind, int]) -> None:
        """Do nothing about it."""


class ExecutorFactory(Protocol):
    """Makes an executor for an engine, which starts and closes it."""

    def __call__(
        self, listener: WorkerListener, *, size: int, scratch: Path, store: str = ""
    ) -> Executor:
        """An executor that has not been started.

        Args:
            listener: Is told what the workers do.
            size: How many workers the engine's settings ask for.
            scratch: A folder on the engine's machine, for files that it needs while it is open.
            store: The location of the engine's store, which all workers have to reach. If empty,
                nobody asks whether they do.
        """
