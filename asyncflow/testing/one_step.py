"""Runs one step of a flow in the test's own process, on artifacts that the test gives.

The values go through a store in a temporary folder, as in a run. So the step has copies, and what
could not be stored is an error.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from asyncflow._support.suggestions import did_you_mean
from asyncflow.engine.arguments import check_flow
from asyncflow.engine.new_run import NewRun
from asyncflow.errors import NotFoundError
from asyncflow.events.manifests import pack_manifest, pack_ref
from asyncflow.events.packing import pack_event, unpack_events
from asyncflow.events.types import TaskSucceeded, from_microseconds
from asyncflow.flow.code_files import CodeFiles
from asyncflow.flow.log_records import tasks_named_in_records
from asyncflow.flow.node import Fanout
from asyncflow.store import open_store
from asyncflow.store.artifacts import ArtifactWriter
from asyncflow.store.frames import frame
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.testing.live_mocks import mocks_by_reference
from asyncflow.testing.scratch_store import scratch_store
from asyncflow.values import RunOptions
from asyncflow.workers.messages import AttemptKey, StartTask
from asyncflow.workers.packed_numbers import pack_numbers
from asyncflow.workers.process.single_task import SingleTask
from asyncflow.workers.program_environment import look_around

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from asyncflow.events.types import RunStarted
    from asyncflow.flow.node import Node
    from asyncflow.flow.spec import FlowSpec

_NOT_GIVEN: Final[Any] = object()


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step has come to: its artifacts, also as attributes, and where it goes on to."""

    step: str
    """The step."""
    artifacts: Mapping[str, Any] = field(repr=False)
    """Everything that the step would pass on, by name: what it was given and what it has set."""
    next_steps: tuple[str, ...]
    """Where it goes on to; empty after the last step."""
    fanout: int | None = None
    """After `self.next(…, foreach=…)`: how many tasks would follow; None elsewhere."""
    input: Any = field(default=None, repr=False)
    """The item that it was given, for a join that it is an input of."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self.artifacts[name]
        except KeyError:
            message = f"{self.step!r} passes on no artifact {name!r}"
            message += did_you_mean(name, self.artifacts) or f"; it has {', '.join(self.artifacts)}"
            raise AttributeError(message, name=name) from None

    def __dir__(self) -> list[str]:
        return [*super(StepResult, self).__dir__(), *self.artifacts]


def run_step(
    flow: type[FlowSpec],
    step: str,
    /,
    *,
    artifacts: Mapping[str, Any] | None = None,
    input: Any = _NOT_GIVEN,  # noqa: A002 - as the step calls it
    inputs: Sequence[StepResult | Mapping[str, Any]] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> StepResult:
    """Run one step, `def` or `async def`, in this process, and return what it has come to.

    The step runs once, whatever `@retry`, `@catch`, `@timeout` and `@isolate` say. Functions and
    modules that the test has replaced are replaced for the step, too, and mocks may be artifacts.

    Args:
        flow: The flow class.
        step: The name of the step.
        artifacts: What the step inherits, by name; nothing if left out.
        input: The item of its foreach.
        inputs: For a join: the artifacts of each of its inputs, or what `run_step` has returned for
            it. Those of branches stand in the order in which the flow splits.
        parameters: Values of the flow's parameters by name; the others have their defaults.

    Raises:
        BaseException: Whatever the step raises.
        NotFoundError: The flow has no such step.
        GraphError: The flow's steps form no graph that can be run.
        ParameterError: A parameter is missing, is unknown, or cannot take its value.
        ArtifactPickleError: A value that was given or made cannot be stored.
        TypeError: The step is a join and no `inputs` are given, or the other way round.
    """
    check_flow(flow)
    with mocks_by_reference(), tasks_named_in_records():
        given = _GivenRun(flow, step, parameters or {})
        try:
            order = given.order(artifacts or {}, input, inputs)
        finally:
            given.close()
        single = given.task(order)
        outcome = single.run({}, _ignore)
        made = {
            name: value for name, value in single.artifacts.items() if name not in given.constants
        }
        item = None if input is _NOT_GIVEN else input
        return StepResult(step, made, single.next_steps, outcome.fanout, item)


def _ignore(*_: object) -> None:
    """Say nothing of a shared resource that could not be closed."""


class _NewRunOfStep(NewRun):
    """A run whose flow nobody else has to find."""

    def _source(
        self,
        writer: ArtifactWriter,  # noqa: ARG002 - the signature is the base class's
        variables: Mapping[str, Mapping[str, str]],  # noqa: ARG002 - the signature is the base class's
    ) -> dict[str, Any]:
        return {"name": self._flow.__qualname__, "module": self._flow.__module__, "kind": "module"}

    @property
    def flow(self) -> type[FlowSpec]:
        """The flow with its configurations."""
        return self._flow


class _GivenRun:
    """A run that seems to have come as far as the step."""

    def __init__(self, flow: type[FlowSpec], step: str, parameters: Mapping[str, Any]) -> None:
        environ = os.environ
        self._store = open_store(scratch_store(), create=True)
        new = _NewRunOfStep(self._store, flow, (), CodeFiles("none"), environ, durable=False)
        new.give(parameters)
        self.flow, self.graph = new.flow, new.graph
        if step not in self.graph.nodes:
            hint = did_you_mean(step, self.graph.nodes)
            message = f"{flow.__name__} has no step {step!r}{hint}"
            raise NotFoundError(message)
        self._node = self.graph[step]
        self._identity, self._journal, first = new.create(1, RunOptions(), look_around(environ))
        (started,) = unpack_events(first, "", "")
        self.constants: Collection[str] = cast("RunStarted", started).artifacts
        """The names of its parameters and constants, which no task passes on."""
        self._writer = ArtifactWriter(self._identity.stored.value_sink("given"))
        self._tasks = 0

    def close(self) -> None:
        """Close the files that were written."""
        self._writer.close()
        self._journal.deliver()
        self._journal.close()

    def task(self, order: StartTask) -> SingleTask:
        """The task of an order."""
        return SingleTask(self._identity.opening(), order, self.flow, self.graph)

    def order(
        self,
        artifacts: Mapping[str, Any],
        item: Any,
        inputs: Sequence[StepResult | Mapping[str, Any]] | None,
    ) -> StartTask:
        """The order to run the step on what is given."""
        node = self._node
        if node.is_join is (inputs is None):
            wrong = "takes no inputs" if inputs is not None else "is a join: give it inputs=[…]"
            message = f"the step {node.name!r} {wrong}"
            raise TypeError(message)
        if node.is_join and artifacts:
            message = f"the join {node.name!r} inherits nothing: give each of its inputs artifacts"
            raise TypeError(message)
        if item is not _NOT_GIVEN and not node.depth:
            message = f"the step {node.name!r} is in no foreach, and has no input"
            raise TypeError(message)
        depth = node.depth
        items: list[Sequence[Any]] = [[None]] * depth
        if depth and item is not _NOT_GIVEN:
            items[-1] = [item]
        over_foreach = node.is_join and self.graph[str(node.joins)].fanout is Fanout.FOREACH
        if over_foreach:
            items.append([getattr(each, "input", None) for each in inputs or ()])
        stack = [self._splitter(level, each) for level, each in enumerate(items)]
        path = (0,) * depth
        if inputs is not None:
            before = self._inputs(inputs, path, over_foreach=over_foreach)
        elif artifacts:
            step = next(iter(self.graph.previous(node.name)), node.name)
            before = [self._finished(step, path, artifacts)]
        else:
            before = [FIRST_RECORD]
        self._tasks += 1
        key = AttemptKey(1, self._tasks, 0)
        packed = pack_numbers(array("Q", before))
        return StartTask(key, node.name, path, stack, packed, ())

    def _splitter(self, level: int, items: Sequence[Any]) -> int:
        """A task that has fanned out over these items, as the `level`-th around the step."""
        split = self._foreach_at(level)
        ref = self._writer.put_items(items, name=split.foreach or split.name)[1]
        return self._finished(split.name, (0,) * level, {}, fanout=len(items), items=pack_ref(ref))

    def _foreach_at(self, level: int) -> Node:
        """The foreach that is the `level`-th around the step, outermost first."""
        before = self.graph.before(self._node.name)
        return next(
            node
            for node in self.graph
            if node.name in before
            and node.fanout is Fanout.FOREACH
            and node.depth == level
            and (node.name == self._node.joins or self._node.name in self.graph.within(node.name))
        )

    def _inputs(
        self,
        inputs: Sequence[StepResult | Mapping[str, Any]],
        path: tuple[int, ...],
        *,
        over_foreach: bool,
    ) -> list[int]:
        steps = self.graph.previous(self._node.name)
        if not over_foreach and len(inputs) != len(steps):
            message = f"{self._node.name!r} joins {', '.join(steps)}: give as many inputs"
            raise TypeError(message)
        found = []
        for index, each in enumerate(inputs):
            step = steps[0] if over_foreach else steps[index]
            values: Any = each
            if isinstance(each, StepResult):
                step = each.step if each.step in steps else step
                values = each.artifacts
            found.append(self._finished(step, (*path, index) if over_foreach else path, values))
        return found

    def _finished(
        self, step: str, path: tuple[int, ...], artifacts: Mapping[str, Any], **fanned_out: Any
    ) -> int:
        """Have the journal say that a task has ended with these artifacts; where it says so."""
        self._tasks += 1
        refs = {
            name: self._writer.put(value, name=name)
            for name, value in artifacts.items()
            if name not in self.constants
        }
        event = TaskSucceeded(
            flow=self._identity.flow,
            run_id=self._identity.run_id,
            seq=self._tasks + 1,
            time=from_microseconds(self._identity.started),
            step=step,
            task_id=str(self._tasks),
            attempt=0,
            path=path,
            pid=os.getpid(),
            manifest=pack_manifest(refs),
            **fanned_out,
        )
        at = self._journal.size
        self._journal.write(frame(pack_event(event)))
        return at
