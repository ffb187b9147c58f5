"""Where the microseconds of a task go, in the engine and in the worker, by CPU time.

Some methods are wrapped, each of which is one stage of a task's way. A stage's time is that of its
thread's CPU, without that of the stages within it; a clock is read twice for each call, which is
taken off. What no stage has is the event loop, the journal's thread, and what is between them.
`docs/performance.md` keeps the numbers.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import anyio

from asyncflow import Engine
from asyncflow.testing import run_flow
from asyncflow.workers.process.worker import Worker
from benchmarks.flows import NoOps, Typical

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncflow import FlowSpec

TASKS = 5_000
ENGINE = {
    "reading reports": ("workers.local.pool:WorkerPool._read",),
    "passing them on": (
        "workers.local.report_teller:ReportTeller.tell",
        "scheduling.report_router:ReportRouter.on_reports",
    ),
    "records and index": ("scheduling.fact_inbox:FactInbox.collect",),
    "the plan": ("scheduling.plan:Plan.handle",),
    "publishing": ("engine.subscription:Channel.publish",),
    "assigning": ("scheduling.task_assigner:TaskAssigner.dispatch",),
    "taking ready tasks": (
        "scheduling.task_orders:TaskOrders.take",
        "scheduling.task_orders:TaskOrders.take_items",
    ),
    "sending orders": ("workers.local.worker_process:WorkerProcess.send",),
    "handing the write to a thread": ("_support.thread_pool:Threads.submit",),
}
WORKER = {
    "receiving orders": ("workers.process.worker:Worker._receive",),
    "reporting": (
        "workers.process.worker:Worker._tell_start",
        "workers.process.worker:Worker.report_soon",
    ),
    "settings put back": ("workers.process.environment:put_back_settings",),
    "the attempt around the step": ("workers.process.run_task:TaskAttempt.carry_out_now",),
    "the instance": ("workers.process.task:TaskView.__init__",),
    "the step itself": ("workers.process.task:TaskView.call",),
    "its item": ("workers.process.task:TaskView.input",),
    "its parameters": ("flow.parameters:Parameter.__get__",),
    "storing": ("workers.process.task_artifacts:TaskArtifacts.store",),
    "where its output ends": ("workers.process.output_capture:spooled",),
}


class Stages:
    """The time that each stage has taken."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open: list[float] = []  # for each open stage, what stages within it have taken
        self._cost = self._cost_of_a_call()

    def _cost_of_a_call(self) -> float:
        nothing = self.wrapped("", lambda: None)
        began = time.thread_time()
        for _ in range(10_000):
            nothing()
        return (time.thread_time() - began) / 10_000

    def wrapped(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time is added to that of its stage."""

        def timed(*args: Any, **more: Any) -> Any:
            self._open.append(0.0)
            began = time.thread_time()
            try:
                return function(*args, **more)
            finally:
                took = time.thread_time() - began
                self.seconds[stage] += took - self._open.pop()
                if self._open:
                    self._open[-1] += took + getattr(self, "_cost", 0.0)

        return timed

    def wrap(self, stages: Mapping[str, tuple[str, ...]]) -> None:
        """Wrap the methods of these stages that this version has."""
        for stage, places in stages.items():
            for place in places:
                module, _, path = place.partition(":")
                owner: Any = importlib.import_module(f"asyncflow.{module}")
                *outer, name = path.split(".")
                for each in outer:
                    owner = getattr(owner, each)
                if hasattr(owner, name):
                    setattr(owner, name, self.wrapped(stage, getattr(owner, name)))

    def told(self, what: str, total: float) -> None:
        """Print the stages, in µs for each task."""
        print(f"{what}: {total / TASKS * 1e6:.0f} µs for each task")
        for stage, seconds in sorted(self.seconds.items(), key=lambda each: -each[1]):
            if stage:
                print(f"  {stage:32s} {seconds / TASKS * 1e6:6.1f}")
        print(f"  {'the rest':32s} {(total - sum(self.seconds.values())) / TASKS * 1e6:6.1f}")


async def engine(flow: type[FlowSpec]) -> None:
    """The stages of the engine."""
    with tempfile.TemporaryDirectory() as store:
        async with Engine(store=store, workers=2) as running:
            await running.run(flow, width=500)
            stages = Stages()
            stages.seconds.clear()
            stages.wrap(ENGINE)
            began = time.process_time()
            await running.run(flow, width=TASKS)
            stages.told(f"engine, {flow.__name__}", time.process_time() - began)


def worker(flow: type[FlowSpec]) -> None:
    """The stages of a worker, in a thread of this process."""
    stages = Stages()
    stages.seconds.clear()
    stages.wrap(WORKER)
    serve, took = Worker.serve, 0.0

    def timed(self: Worker) -> None:
        nonlocal took
        began = time.thread_time()
        serve(self)
        took = time.thread_time() - began

    Worker.serve = timed  # type: ignore[method-assign] # a clock is put around it
    run_flow(flow, width=TASKS)
    stages.told(f"worker, {flow.__name__}", took)


def main() -> None:
    """Each flow in a process of its own: the methods stay wrapped."""
    for who in ("engine", "worker"):
        for flow in ("typical", "empty"):
            subprocess.run([sys.executable, "-m", "benchmarks.stages", who, flow], check=True)


if __name__ == "__main__":
    FLOW = Typical if sys.argv[2] == "typical" else NoOps
    if sys.argv[1] == "engine":
        anyio.run(engine, FLOW)
    else:
        worker(FLOW)
