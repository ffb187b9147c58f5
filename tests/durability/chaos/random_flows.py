"""Random flows on the real engine and on the reference: same artifacts, same statuses.

One example again: hypothesis prints the program; its source is in the folder that is named.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, given, settings

from asyncflow import Engine, Run, events
from asyncflow.errors import RunFailedError
from asyncflow.flow import loader
from asyncflow.values import Failure, Status
from tests.durability.chaos.programs import Program, programs, source
from tests.durability.chaos.reference import Caught, Reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow import FlowSpec

_SECONDS = 180.0  # for one run; some take one hundredth of it


class Bench:
    """One warm engine for many flows, on an event loop in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        self._numbers = count(1)

    @contextmanager
    def open(self) -> Iterator[Bench]:
        """Have the engine open."""
        self._engine = Engine(store=self.store, workers=2)
        with (
            start_blocking_portal() as self._portal,
            self._portal.wrap_async_context_manager(self._engine),
        ):
            yield self

    def load(self, program: Program) -> type[FlowSpec]:
        """The flow of a program, from a file of its own."""
        file = self.folder / f"random_flow_{next(self._numbers)}.py"
        file.write_text(source(program))
        return loader.load_flow(str(file))

    def run(self, flow: type[FlowSpec], origin: str = "") -> Run:
        """Run a flow, or resume a run of it, to its end, be that good or bad."""
        try:
            if origin:
                doing = self._portal.start_task_soon(
                    partial(self._engine.resume, flow, origin=origin)
                )
            else:
                doing = self._portal.start_task_soon(self._engine.run, flow)
            run = doing.result(_SECONDS)
        except RunFailedError as error:
            run = error.run
        return run

    def check(self, program: Program) -> None:
        """Run a program, and where it fails its mended form from there on; compare each task.

        Raises:
            AssertionError: The engine and the reference do not agree.
        """
        run = self.run(self.load(program))
        reference = Reference(program).run()
        compare(run, reference)
        if reference.failed:
            mended = program.mended()
            again = self.run(self.load(mended), origin=run.id)
            compare(again, Reference(mended).run(), resumed=run)


def succeeded(run: Run) -> set[tuple[str, tuple[int, ...]]]:
    """The tasks of a run that have succeeded."""
    return {
        (event.step, event.path)
        for event in run.events()
        if isinstance(event, events.TaskSucceeded | events.TaskCloned)
    }


def compare(run: Run, reference: Reference, resumed: Run | None = None) -> None:
    """Every task of the run is as the reference says, and, if the run succeeded, none is missing.

    Raises:
        AssertionError: It is not so.
    """
    wanted = Status.FAILED if reference.failed else Status.SUCCEEDED
    assert run.status is wanted, f"{run} is to be {wanted}"
    seen, cloned, attempts = {}, set(), {}
    began: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for event in run.events():
        match event:
            case events.TaskStarted():
                began[event.step, event.path] += 1
            case events.TaskSucceeded() | events.TaskCloned():
                seen[event.step, event.path] = event.task_id
                attempts[event.step, event.path] = event.attempt + 1
                if isinstance(event, events.TaskCloned):
                    cloned.add((event.step, event.path))
            case events.RunFailed():
                assert event.step in reference.failed
                assert (event.exception_type, event.message) == ("ValueError", event.step)
    assert cloned == (succeeded(resumed) if resumed is not None else set())
    for key, task_id in seen.items():
        task = reference.tasks[key]
        found = run[key[0]][task_id]
        assert task.artifacts is not None, f"{key} has succeeded"
        artifacts = {artifact.id: plain(artifact.data) for artifact in found}
        assert artifacts == task.artifacts, f"{key} has {artifacts}, and not {task.artifacts}"
        if resumed is None:  # else those before count too, of tasks that waited for another
            assert attempts[key] == task.attempts, f"{key} succeeded in attempt {attempts[key]}"
            least = 1 if task.is_node else task.attempts
            assert least <= began[key] <= task.attempts, f"{key} began {began[key]} times"
    if not reference.failed:
        assert set(seen) == set(reference.tasks)


def plain(value: Any) -> Any:
    """A value as the reference has it."""
    if isinstance(value, Failure):
        return Caught(value.step, value.attempt, value.exception_type, value.message)
    return value


def check_examples(examples: int, *, derandomize: bool) -> int:
    """Check so many random programs; how many tasks they have.

    Raises:
        AssertionError: The engine and the reference do not agree.
    """
    tasks = 0
    with tempfile.TemporaryDirectory(prefix="asyncflow-random-") as folder:
        bench = Bench(Path(folder))

        @settings(
            max_examples=examples,
            derandomize=derandomize,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(programs())
        def check(program: Program) -> None:
            nonlocal tasks
            bench.check(program)
            tasks += len(Reference(program).run().tasks)

        with bench.open():
            check()
    return tasks


def everything(examples: int = 400) -> str:
    """Many random programs, others each time; how many."""
    tasks = check_examples(examples, derandomize=False)
    return f"{examples:,} random flows, {tasks:,} tasks, as the serial reference says"
