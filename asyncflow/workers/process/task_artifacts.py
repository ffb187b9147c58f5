"""The artifacts of one task: what it inherits, what its step has read, and what it passes on.

A value is read when the step uses it. When the step has ended, new and changed values are written
to the store, and the others are passed on by their refs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asyncflow.errors import ArtifactPickleError
from asyncflow.events.manifests import pack_ref
from asyncflow.flow.bound_task import artifacts_of
from asyncflow.flow.transition_checks import check_items
from asyncflow.store.artifacts import ref_to_short
from asyncflow.store.change_detection import is_immutable
from asyncflow.store.manifests import packed
from asyncflow.values import STREAMED, Encoding, Outcome, Place
from asyncflow.workers.messages import new_outcome
from asyncflow.workers.process.item_stream import ItemStream
from asyncflow.workers.process.step_forks import EndingForks

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from asyncflow import codec
    from asyncflow.flow.bound_task import BoundTask
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.store.change_detection import Loaded
    from asyncflow.store.value_interface import Later
    from asyncflow.values import ArtifactRef
    from asyncflow.workers.messages import AttemptKey, Yielded
    from asyncflow.workers.process.run import Inherited, OpenRun, OpenStep


OnLost = Callable[[ArtifactPickleError], object]
"""Is called for a value that cannot be stored."""


class _StoppedError(Exception):
    """The task's result is no longer wanted."""


class TaskArtifacts:
    """The artifacts of one task, by name: their refs, and the values that the step has read."""

    __slots__ = (
        "_inherited",
        "_loaded",
        "_run",
        "_step",
        "_stored",
        "_task",
        "are_wanted",
        "refs",
    )

    def __init__(
        self,
        run: OpenRun,
        step: OpenStep,
        task: int,
        inherited: Inherited,
    ) -> None:
        """Read nothing yet; `task` is the task's id."""
        self._run, self._step, self._task, self._inherited = run, step, task, inherited
        self.are_wanted = True
        """Whether the values being stored are still wanted; if not, the rest is not written."""
        self._loaded: dict[str, Loaded] = {}
        self._stored: dict[str, tuple[object, ArtifactRef]] = {}
        self.refs: MutableMapping[str, ArtifactRef] = inherited.passed_on()
        """What the task would pass on now."""

    def _called(self, name: str) -> str:
        return f"{self._step.place}{self._task}/{name}"

    def load(self, name: str, later: Later | None) -> object:
        """The value of an inherited artifact."""
        base = self._run.base
        if name in base:  # nobody can assign it, so a change does not matter
            value = base.load(name, later)
            if base.ref(name).place == Place.INLINE and is_immutable(value):
                self._run.constants[name] = value
            return value
        ref = self.refs[name]
        adopted = ref is not self._inherited.manifest.get(name)
        called = self._called(name) if adopted else self._inherited.called(name)
        loaded = self._run.reader.load(ref, called, later)
        loaded.note()
        self._loaded[name] = loaded
        return loaded.value

    def forget(self, name: str) -> None:
        """Remove the artifact from the task."""
        self.refs.pop(name, None)
        self._loaded.pop(name, None)

    def store(
        self, task: BoundTask, flow: FlowSpec, foreach: str | None, on_lost: OnLost | None
    ) -> Outcome:
        """Store new and changed values.

        Args:
            task: The task whose step it is; errors name it.
            flow: The instance that the step has worked on.
            foreach: The name of the artifact that the step fans out over, if it does.
            on_lost: If the step has failed: called for a value that cannot be stored, which is left
                out.
        """
        values = artifacts_of(flow)
        fanout, items = task.num_parallel, b""
        if foreach is not None:
            with EndingForks():  # so may going through the items
                fanout, ref = self._put_items(task, flow, foreach, values)
            items = pack_ref(ref)
        if values:
            self._put_all(values, on_lost)
        self._run.writer.sync()
        manifest = self._inherited.packed(self.refs)
        outcome: Outcome = new_outcome((manifest, fanout, items, task.choice, b""))
        return outcome

    def is_streamed(self, flow: FlowSpec, foreach: str) -> bool:
        """Whether the number of items is not known before the last one has come."""
        values = artifacts_of(flow)
        if foreach not in values and foreach in self.refs:
            return False  # a generator is never inherited
        value = values[foreach] if foreach in values else getattr(flow, foreach)
        return not hasattr(value, "__len__")

    def begin_stream(
        self, flow: FlowSpec, foreach: str, key: AttemptKey, tell: Callable[[Yielded], None]
    ) -> tuple[Any, ItemStream]:
        """Store all values but the generator; return that, and where its items go."""
        values = artifacts_of(flow)
        source = values.pop(foreach) if foreach in values else getattr(flow, foreach)
        if foreach not in self._run.base:
            self.refs.pop(foreach, None)
        self._put_all(values, None)
        manifest = packed(self.refs)
        writer = self._run.writer
        return source, ItemStream(foreach, key, writer, manifest, tell=tell, go_on=self._go_on)

    def end_stream(self, foreach: str, stream: ItemStream) -> Outcome:
        """The result of the task, once its generator has yielded the last item."""
        ref = stream.finish()
        if foreach not in self._run.base:
            self.refs[foreach] = ref
        self._run.writer.sync()
        items = pack_ref(ref._replace(type_name=STREAMED))
        return Outcome(packed(self.refs), stream.count, items)

    def _go_on(self) -> None:
        if not self.are_wanted:
            raise _StoppedError

    def _put_all(self, values: dict[str, Any], on_lost: OnLost | None) -> None:
        run_names, read = self._run.base_names, self._loaded
        for name, value in values.items():
            if name in run_names:
                # changes of the task's copy of a parameter or a constant end with the task
                continue
            if not self.are_wanted:
                raise _StoppedError
            ref = ref_to_short(value) if name not in read else None
            if ref is not None:
                self.refs[name] = ref
                continue
            try:
                with EndingForks():  # pickling a value may run its class's code
                    self.refs[name] = self._put(name, value)
            except ArtifactPickleError as error:
                if on_lost is None:
                    raise
                self.refs.pop(name, None)  # its former value is not what the step had set
                on_lost(error)

    def _put(self, name: str, value: object) -> ArtifactRef:
        if not self._step.node.catches:
            return self._put_now(name, value)
        # The step may have failed while storing this; it is not stored twice.
        stored, ref = self._stored.get(name, (None, None))
        if ref is None or stored is not value:
            ref = self._put_now(name, value)
            self._stored[name] = value, ref
        return ref

    def _put_now(self, name: str, value: object) -> ArtifactRef:
        loaded = self._as_read(name, value)
        if loaded is None:
            return self._run.writer.put(value, name=name, go_on=self._go_on)
        encoded = self._changed(name, loaded)
        if encoded is None:
            return self.refs[name]
        return self._run.writer.put_encoded(encoded, self._go_on)

    def _as_read(self, name: str, value: object) -> Loaded | None:
        """The value of an artifact as the step has read it, unless it has assigned another."""
        loaded = self._loaded.get(name)
        return loaded if loaded is not None and loaded.value is value else None

    def _is_unchanged(self, name: str, value: object) -> bool:
        loaded = self._as_read(name, value)
        return loaded is not None and self._changed(name, loaded) is None

    def _changed(self, name: str, loaded: Loaded) -> codec.Encoded | None:
        """What to store for an artifact that the step has read; None if it is unchanged."""
        try:
            return loaded.changed(name)
        except ArtifactPickleError as error:
            if loaded.is_comparable:
                raise
            # Only the stored value can be passed on, and the step may have done no more than look.
            print(f"Passed on as it was read, even if it has changed: {error}", file=sys.stderr)  # noqa: T201 - into the task's log
            return None

    def _put_items(
        self, task: BoundTask, flow: FlowSpec, name: str, values: dict[str, Any]
    ) -> tuple[int, ArtifactRef]:
        """Store the items of a foreach one by one; a plain list is stored only in this form.

        An inherited artifact stays as it is, unless the step has changed it.
        """
        inherited = self.refs.get(name)
        if (
            inherited is not None
            and inherited.encoding == Encoding.ITEMS
            and (name not in values or self._is_unchanged(name, values[name]))
        ):
            values.pop(name, None)
            return self._run.reader.item_count(inherited, self._called(name)), inherited
        value = values[name] if name in values else getattr(flow, name)
        check_items(task, name, value)
        count, ref = self._run.writer.put_items(value, name=name, go_on=self._go_on)
        if type(value) in {list, tuple}:
            values.pop(name, None)
            if name not in self._run.base and not self._is_unchanged(name, value):
                self.refs[name] = ref
        return count, ref
