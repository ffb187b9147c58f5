"""Brings the ready tasks of all runs to workers, and what workers report back to the runs.

How it works:

1. A run enters, and is queued as long as it may have ready tasks (`fair_turns`).
2. The `TaskAssigner` serves the runs in turn: it picks a step whose limits allow one more task,
   finds a worker with room (`placement`), and sends the order. Short tasks are queued at a worker
   ahead of time, long ones are not.
3. The `ReportRouter` turns each report into a fact for the run, which journals it. Every report
   may have made room, so tasks are assigned again afterwards.
4. The `WorkerWatch` polls busy workers: it takes back tasks that are queued behind a long one,
   and destroys workers that stay silent.
5. The `Stopper` ends tasks that are out of time or whose run is ending.
6. An attempt whose worker is gone is lost: the run hears of it as of any other failure.

Everything happens on one event loop, and nothing here waits. An executor has to fulfil
`asyncflow.workers.interface`, a run `asyncflow.scheduling.facts.TaskSource`.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asyncflow.scheduling.machine_resources import Amounts
from asyncflow.scheduling.placement import AllWorkers
from asyncflow.scheduling.report_router import ReportRouter
from asyncflow.scheduling.task_assigner import TaskAssigner
from asyncflow.scheduling.worker_watch import WorkerWatch
from asyncflow.workers.messages import CloseRun

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from asyncflow.errors import PoolError
    from asyncflow.scheduling.facts import TaskSource
    from asyncflow.scheduling.named_limits import Limits
    from asyncflow.scheduling.run_services import RunServices
    from asyncflow.workers.interface import Executor, Kind, WorkerLink
    from asyncflow.workers.messages import MoreInputs, ReportMessage, YieldMore


class Dispatcher:
    """Lets runs enter and leave, and listens to the executor's workers."""

    def __init__(
        self,
        services: RunServices,
        open_executor: Callable[[Dispatcher], Executor],
        open_limits: Callable[[Callable[[TaskSource], None]], Limits] | None = None,
        *,
        machine: Sequence[float] = (),
        blocked_seconds: float = 0.0,
        import_seconds: float = 0.0,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Connect an executor with the runs that enter.

        Args:
            services: What the runs share.
            open_executor: Makes the executor; it gets the dispatcher, which listens to the
                workers, and does not call it before it has returned.
            open_limits: Makes the named limits; it gets what is called with a run whose limit may
                be free. Without it no task waits for a named limit.
            machine: CPUs, GPUs and megabytes of memory for tasks under `@resources`; without them
                no task waits for any.
            blocked_seconds: After how long a worker reports that its event loop is blocked; 0 for
                never.
            import_seconds: How long a worker may import a flow; 0 for any time.
            loop: The event loop to work on; the running one if left out.
        """
        self._loop = loop or asyncio.get_running_loop()
        self._runs: dict[int, TaskSource] = {}
        self._slots = AllWorkers(open_executor(self))
        self._assigner = TaskAssigner(
            self._slots,
            self._loop,
            services.loop_budget,
            open_limits(self._wake) if open_limits is not None else None,
            Amounts(*machine) if machine else None,
            blocked_seconds=blocked_seconds,
            on_assigned=self._watch_workers,
            on_broken=self.on_broken,
        )
        self._watch = WorkerWatch(self._slots, self._assigner, self._loop)
        self._router = ReportRouter(
            self._slots,
            self._runs,
            self._assigner,
            self._loop,
            grace_seconds=services.grace_seconds,
            import_seconds=import_seconds,
            on_broken=self.on_broken,
        )

    def _wake(self, source: TaskSource) -> None:
        self._assigner.wake(source)

    def _watch_workers(self) -> None:
        self._watch.begin()

    @property
    def executor(self) -> Executor:
        """Where tasks run."""
        return self._slots.executor

    def close(self) -> None:
        """Cancel the timers; every run has ended."""
        self._watch.close()

    # --- what runs tell it ---

    def enter(self, source: TaskSource) -> None:
        """Add a run that begins, and may have ready tasks."""
        self._runs[source.number] = source
        self._assigner.enter(source)

    def leave(self, source: TaskSource) -> None:
        """Remove a run that has ended. Harmless when repeated."""
        number = source.number
        self._runs.pop(number, None)
        self._assigner.leave(source)
        for slot in self._slots:
            if number in slot.opened:
                slot.opened.discard(number)
                slot.known.discard(number)
                slot.imported.pop(number, None)
                slot.worker.send(CloseRun(number))
        self._router.resume_paused_workers(
            source
        )  # nobody else may, if they were paused for this run

    def dispatch(self, source: TaskSource | None = None) -> None:
        """Assign as many tasks as workers have room for; `source` may have new ones."""
        self._assigner.dispatch(source)

    def stop(self, source: TaskSource, reason: str, *, running: bool = True) -> None:
        """Stop a run's tasks: take back those not begun and, if `running`, end the others."""
        number = source.number
        for slot in self._slots:
            tasks = slot.of_run(number)
            if tasks:
                slot.worker.take_back()
            if running:
                for assigned in tasks:
                    self._router.stopper.stop(slot, assigned, reason)

    def send_to(self, order: YieldMore | MoreInputs) -> None:
        """Send an order about a running attempt to its worker."""
        for slot in self._slots:
            if order.key in slot.tasks:
                slot.worker.send(order)

    def stop_tasks(self, source: TaskSource, tasks: Collection[int], reason: str) -> None:
        """Stop some of a run's tasks: take back those not begun, and end the others."""
        number, wanted = source.number, set(tasks)
        for slot in list(self._slots):
            found = [assigned for assigned in slot.of_run(number) if assigned.key.task in wanted]
            if found:
                slot.worker.take_back()
            for assigned in found:
                self._router.stopper.stop(slot, assigned, reason)

    def resume_paused_workers(self, source: TaskSource) -> None:
        """A run's journal has caught up: hear again of the workers that were paused for it."""
        self._router.resume_paused_workers(source)

    # --- what the executor tells it ---

    def on_reports(self, worker: WorkerLink, reports: Sequence[ReportMessage]) -> None:
        """Handle reports of a worker."""
        self._router.on_reports(worker, reports)

    def on_exit(self, worker: WorkerLink, how: str) -> None:
        """Handle the exit of a worker; all its reports came before."""
        self._router.on_exit(worker, how)

    def on_stopped(self, worker: WorkerLink, how: str) -> None:
        """Note that a worker was stopped by a signal such as SIGSTOP."""
        self._watch.on_stopped(worker, how)

    def on_continued(self, worker: WorkerLink) -> None:
        """Note that a stopped worker goes on."""
        self._watch.on_continued(worker)

    def on_room(self) -> None:
        """Assign tasks: more workers may be started than before."""
        self._assigner.on_room()

    def on_refused(self, kind: Kind, error: PoolError) -> None:
        """Fail the runs that wait for workers of a kind that there will never be."""
        self._assigner.refuse_kind(kind, error)

    def on_broken(self, error: PoolError) -> None:
        """Fail all runs: no worker can be started."""
        for source in list(self._runs.values()):
            source.abandon(error)

    # --- what the engine asks and tells ---

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Within the block all workers are stopped; do not count that time as time of tasks."""
        began = self._loop.time()
        try:
            yield
        finally:
            self._router.stopper.add_suspended(self._loop.time() - began)

    @property
    def statistics(self) -> Mapping[str, int]:
        """How many tasks wait and run, and how many workers are idle and busy."""
        busy = sum(bool(slot.tasks) for slot in self._slots)
        return {
            "tasks_waiting": sum(source.orders.ready for source in self._runs.values()),
            "tasks_running": sum(len(slot.tasks) for slot in self._slots),
            "workers_idle": len(self._slots) - busy,
            "workers_busy": busy,
        }

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self._runs)} runs, {len(self._slots)} workers>"
