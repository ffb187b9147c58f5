"""A run that a worker has open: its flow class, its store, and the results of finished tasks.

All of it comes from the run's journal. A task's result is read at the offset of its record, once
for all the tasks after it.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from asyncflow import codec
from asyncflow.errors import JournalError, RecordError
from asyncflow.events.manifests import pack_manifest, ref_of, unpack_ref
from asyncflow.events.packing import unpack_events
from asyncflow.events.records import unpack_result
from asyncflow.flow import loader
from asyncflow.flow.current import not_awaitable
from asyncflow.flow.delayed_values import CONFIG_VALUES, has_configs
from asyncflow.flow.graph import Graph
from asyncflow.flow.graph_reader import prepare
from asyncflow.flow.parameters import Parameter
from asyncflow.flow.spec import FlowSpec
from asyncflow.flow.task_instance import instance_class
from asyncflow.store import open_store
from asyncflow.store.artifacts import ArtifactReader, ArtifactWriter
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.store.manifests import ChangingManifest, JournalManifests, packed
from asyncflow.values import STREAMED, ArtifactRef, indexes_of, is_same
from asyncflow.workers.process.environment import EnvironmentSnapshot, enter, lasting_settings
from asyncflow.workers.process.replica import Replica
from asyncflow.workers.program_environment import ProgramEnvironment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping, Sequence

    from asyncflow._support.guarded_descriptor import Descriptors
    from asyncflow.events.types import RunStarted
    from asyncflow.store.value_interface import Later, Tell, ValueSink
    from asyncflow.workers.messages import Opening

_UNREADABLE: Final = (JournalError, OSError, ValueError, LookupError)
"""What reading a damaged journal raises."""
_KEPT_RESULTS: Final = 256  # a foreach reads one for all of its tasks


class OpenRun:
    """A run that a worker has open: its flow class, its store, and the results of other tasks."""

    def __init__(self, order: Opening, pid: int, tell: Tell | None = None) -> None:
        """Read nothing yet; `tell` is told what has to be uploaded, see `StoredRun.value_sink`."""
        self.order = order
        self._tell = tell
        self.pathspec = f"{order.flow}/{order.run_id}"
        self._pid = pid
        self._folder = ""  # where its code was unpacked, if it was
        self._opened = False
        self.is_read = False
        """Whether its first event has been read."""
        self.has_own_class = False
        """Whether the flow class was stored with the run or configured for it: both are dropped
        with the run."""
        self.constants: dict[str, Any] = {}
        """Values of parameters and class constants that were read, and that cannot be changed."""
        self._results: OrderedDict[int, Inherited] = OrderedDict()
        self._replica: Replica | None = None
        self._watched: Descriptors | None = None
        self._steps: dict[str, OpenStep] = {}

    def read(self) -> None:
        """Read the run's first event, once. It has the graph.

        Raises:
            StoreError: It cannot be read.
        """
        if self.is_read:
            return
        order = self.order
        if order.node_folder:
            from asyncflow.workers.process.travelled_code import check_store_here

            check_store_here(order)
        store = open_store(order.store, known=True, cache=order.cache)
        self.stored = store.run(order.flow, order.run_id)
        values = store.value_source(order.flow)
        with self.reading("its first event"):
            if order.replica:
                stored = self.stored
                self._replica = Replica(order.replica, stored.journal_file, stored.journal_place)
                self.journal = self._replica.open_journal()
                values = self._replica.source(values)
            else:
                self.journal = self.stored.open_journal()
            first = self.journal.read_one(FIRST_RECORD)
        self.manifests = JournalManifests(self.journal.read_one, self.stored.journal_file)
        self.reader = ArtifactReader(values)
        sink = self._sink()
        self.writer = ArtifactWriter(sink)
        self._written = sink.opened
        (self.started,) = cast(
            "tuple[RunStarted]", tuple(unpack_events(first, order.flow, order.run_id))
        )
        self.graph = Graph.from_data(self.started.graph)
        self.parameter_names = tuple(self.started.parameters)
        self.is_read = True

    @property
    def is_open(self) -> bool:
        """Whether the run's flow class has been loaded."""
        return self._opened

    def open(self) -> bool:
        """Load the run's flow class, once; return whether that was now.

        Raises:
            Exception: Whatever the user's module raises when it is imported.
        """
        if self._opened:
            return False
        self.read()
        self._enter_environment()
        self.base = self.result(FIRST_RECORD, "its parameters")
        self.base_names = frozenset(self.base.refs)
        with lasting_settings():
            self.flow_class = self._load(self.started.source)
        self.kept = EnvironmentSnapshot()  # with the module's own changes
        self._opened = True
        return True

    def _sink(self) -> ValueSink:
        """Where the values of the run's tasks are stored."""
        name = self.order.node or f"w{self._pid}"
        return self.stored.value_sink(name, durable=self.order.durable, tell=self._tell)

    def _enter_environment(self) -> None:
        """Give this process the environment of the program that has started the run."""
        program, opening = ProgramEnvironment._make(self.order.surroundings), self.order
        if opening.node_folder:
            from asyncflow.workers.process.travelled_code import folder_here, program_here

            source, packed = self.started.source, self.started.code_ref
            self._folder = folder_here(
                source, unpack_ref(packed) if packed else None, opening, self._load_code
            )
            program = program_here(program, opening, self._folder, source.get("root", ""))
        enter(program)

    def _load_code(self, ref: ArtifactRef) -> bytes | bytearray | memoryview:
        return self.reader.load_bytes(ref, f"the code of {self.pathspec}")

    def _find_class(self, source: Mapping[str, Any]) -> type[FlowSpec]:
        """The flow's class as the user has written it."""

        def unpickle(ref: Sequence[Any]) -> Any:
            return self.reader.load(ref_of(ref), name="the flow class").value

        if self._folder:
            from asyncflow.workers.process.travelled_code import source_in

            source = source_in(self._folder, source)
        return loader.load(source, unpickle)

    def _load(self, source: Mapping[str, Any]) -> type[FlowSpec]:
        cls = self._find_class(source)
        self.has_own_class = source["kind"] == "pickle"
        codec.pickle_by_value(cls.__module__)
        if has_configs(cls):
            from asyncflow.flow.configuration import configured_from

            self.has_own_class = True
            cls = configured_from(cls, self.base.load, self.base.refs, os.environ)
        return prepare(cls)

    def parameter(self, name: str, later: Later | None = None) -> Any:
        """The value of a parameter, or of a configuration as the flow sees it."""
        configs: Mapping[str, Any] = getattr(self.flow_class, CONFIG_VALUES, {})
        if name in configs:
            return configs[name]
        value = self.base.load(name, later)
        parameter = getattr(self.flow_class, name, None)
        return parameter.as_seen(value) if isinstance(parameter, Parameter) else value

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Within the block, errors of the journal name the run and what was being read."""
        try:
            yield
        except _UNREADABLE as error:
            raise self.unreadable(what, error) from error

    def unreadable(self, what: str, error: Exception) -> JournalError:
        """The error for a journal that was read for this."""
        message = (
            f"the journal of {self.pathspec} cannot be read: {error}. It was read for {what}. "
            f"What else is affected: asyncflow verify {self.pathspec}"
        )
        return JournalError(message)

    def step(self, name: str) -> OpenStep:
        """What all tasks of a step share; the run is open.

        Raises:
            KeyError: There is no such step.
        """
        found = self._steps.get(name)
        if found is None:
            found = self._steps[name] = OpenStep(self, name)
        return found

    def result(self, offset: int, of: str, task: object = "", final: int = 0) -> Inherited:
        """The result of the task whose record is at `offset`; errors name it by `of`, for a task.

        `final` is as in `RecordReader.read_one`.

        Raises:
            JournalError: There is no such record.
        """
        kept = self._results.get(offset)
        if kept is None:
            try:  # not `reading`, which takes longer than the check of a record
                kept = Inherited(self, offset, final)
            except _UNREADABLE as error:
                raise self.unreadable(of.format(task), error) from error
            self._results[offset] = kept
            if len(self._results) > _KEPT_RESULTS:
                self._results.popitem(last=False)
        return kept

    def read_inputs(self, name: str, *, most: int) -> bytes:
        """The file with the inputs of a wide join.

        Raises:
            OSError: It cannot be read.
        """
        return (self._replica or self.stored).read_file(name, most=most)

    def is_whole(self, own: Descriptors) -> bool:
        """Whether its files, and the worker's own, are open: a step may have closed them."""
        watched = self._watched
        if watched is None:
            if not self.is_read:
                return own.are_whole()
            watched = self._watched = own.with_others(self.journal.opened)
        for each in self._written:  # the file for its values, once it has any
            if not each.is_whole():
                return False
        return watched.are_whole()

    def close(self) -> None:
        """Close the run's files."""
        self._steps.clear()  # they refer to this
        if self.is_read:
            self.writer.close()
            self.journal.close()


class OpenStep:
    """What all tasks of one step share, so that none of them makes it."""

    __slots__ = (
        "context_head",
        "context_tail",
        "has_own_init",
        "instance_class",
        "node",
        "place",
        "variables",
    )

    def __init__(self, run: OpenRun, name: str) -> None:
        """Look at the step of a run whose flow class is loaded.

        Raises:
            KeyError: The graph has no such step.
        """
        opening, started = run.order, run.started
        self.node: Final = run.graph.nodes[name]
        self.place: Final = f"{run.pathspec}/{name}/"
        """The pathspec of a task, without its id."""
        self.instance_class: Final[Any] = instance_class(run.flow_class)
        """The class of the tasks' instances."""
        self.has_own_init: Final = self.instance_class.__init__ is not FlowSpec.__init__
        """Whether each task calls an `__init__` of the flow's own."""
        self.variables: Final = opening.variables.get(name)
        """Its environment variables, by `@environment`."""
        self.context_head: Final = (opening.flow, opening.run_id, name)
        """The fields of a `TaskContext` before those of the task."""
        self.context_tail: Final = (
            run.graph,
            run.parameter_names,
            run.parameter,
            not_awaitable,
            started.tags,
            started.origin_run_id,
            None,
            opening.store,
            run.flow_class,
            None,
        )
        """The fields behind them, of a `def` step without cards that is no gang."""

    def __repr__(self) -> str:
        return f"<OpenStep {self.place}>"


class Inherited:
    """A finished task's record, read and checked once for all the tasks after it."""

    __slots__ = (
        "_constants",
        "_items_called",
        "_packed",
        "_passed_on",
        "_raw",
        "_run",
        "_streamed",
        "fanout",
        "first",
        "items",
        "manifest",
        "path",
        "step",
        "task_id",
    )

    def __init__(self, run: OpenRun, offset: int, final: int = 0) -> None:
        self._run = run
        record = run.journal.read_one(offset, final)
        result = unpack_result(record)
        self.step, self.task_id, self.path = result.step, result.task_id, indexes_of(result.path)
        self.first = result.first
        """The index of the first of its items."""
        outcome = result.outcome
        self.fanout = outcome.fanout
        self.items = unpack_ref(outcome.items) if outcome.items else None
        # A join of ten thousand inputs reads one artifact of each, so no ref is checked here.
        self.manifest = run.manifests.of(offset, record, outcome.manifest)
        """The task's artifacts. Asking for one that is not valid raises a `RecordError`."""
        self._raw = self.manifest.told.refs
        self._passed_on: dict[str, ArtifactRef] | None = None
        self._constants: dict[str, ArtifactRef] | None = None
        self._items_called = ""
        self._packed = b""
        self._streamed: str | None = None  # the artifact with the items, if they were yielded

    def __contains__(self, name: str) -> bool:
        return name in self._raw or (self.manifest.base is not None and name in self.manifest)

    def ref(self, name: str) -> ArtifactRef:
        """The ref of one of the task's artifacts.

        Raises:
            KeyError: It has no such artifact.
            JournalError: The record is not valid.
        """
        try:
            return self.manifest[name]
        except RecordError as error:
            raise self._run.unreadable(self.called(name), error) from error

    @property
    def refs(self) -> Mapping[str, ArtifactRef]:
        """All of them, in the order of the manifest; not to be changed.

        Raises:
            JournalError: The record is not valid.
        """
        try:
            return self.manifest.whole()
        except RecordError as error:
            raise self._run.unreadable(self.called("artifacts"), error) from error

    def passed_on(self) -> MutableMapping[str, ArtifactRef]:
        """What a task that has made nothing yet would pass on: to be changed by its owner.

        A class constant is the run's, even if a task taken from another run says otherwise. Items
        that this task has yielded are no list for those after it: the first of these begin before
        there is one.

        Raises:
            JournalError: The record is not valid.
        """
        if self._passed_on is not None:
            return self._passed_on.copy()
        if self._constants is not None:
            changing = ChangingManifest(self.manifest, self._constants)
            if self._streamed is not None:
                changing.pop(self._streamed, None)
            return changing
        base = self._run.base.refs
        if self.items is not None and self.items.type_name == STREAMED:
            foreach = self._run.graph.nodes[self.step].foreach
            self._streamed = foreach if foreach not in base else None
        if self.manifest.is_small:
            self._passed_on = {**self.refs, **base}
            if self._streamed is not None:
                self._passed_on.pop(self._streamed, None)
        else:
            known = self.manifest
            self._constants = {
                name: ref
                for name, ref in base.items()
                if name not in known or not is_same(known[name], ref)
            }
        return self.passed_on()

    def packed(self, refs: MutableMapping[str, ArtifactRef]) -> bytes:
        """The manifest of a task that inherits from this one and passes these on."""
        if refs != self._passed_on:
            return pack_manifest(refs) if type(refs) is dict else packed(refs)
        if not self._packed:  # tasks that have made nothing pass on the same
            self._packed = packed(refs)
        return self._packed

    def called(self, name: str) -> str:
        """The pathspec of one of the task's artifacts; the run's start has the parameters."""
        owner = f"{self.step}/{self.task_id}" if self.step else "parameters"
        return f"{self._run.pathspec}/{owner}/{name}"

    def items_called(self, name: str) -> str:
        """The pathspec of the artifact with the items that the task fans out over."""
        if not self._items_called:  # each task over an item asks for it
            part = f"[{self.first}:]" if self.first else ""
            self._items_called = self.called(name) + part
        return self._items_called

    def load(self, name: str, later: Later | None = None) -> Any:
        """The value of one of the task's artifacts."""
        return self._run.reader.load(self.ref(name), self.called(name), later).value


def stack_of(
    run: OpenRun, task: object, stack: Sequence[int], path: Sequence[int], later: Later | None
) -> list[tuple[int, int | None, object]]:
    """Index, count and item of every foreach on the path of a task, outermost first.

    The count is None if the foreach runs over a generator.
    """
    levels: list[tuple[int, int | None, object]] = []
    for level, (offset, index) in enumerate(zip(stack, path, strict=False)):
        fanout = run.result(offset, "the foreach around {}", task).fanout
        levels.append((index, fanout, item_of(run, task, stack, path, level, later)))
    return levels


def item_of(
    run: OpenRun,
    task: object,
    stack: Sequence[int],
    path: Sequence[int],
    level: int,
    later: Later | None,
) -> object:
    """The item of one level of a task's path."""
    if not 0 <= level < len(stack):
        return None
    splitter = run.result(stack[level], "the item of {}", task)
    node = run.graph.nodes[splitter.step]
    if node.num_parallel is not None:
        return path[level]
    if splitter.items is None:
        return None
    called = splitter.items_called(node.foreach or "")
    return run.reader.load_item(splitter.items, path[level] - splitter.first, called, later)


def item_text_of(run: OpenRun, stack: Sequence[int], path: Sequence[int]) -> str:
    """The short text of a task's item of the innermost foreach; empty if it has none.

    Nothing is unpickled, and no flow has to be imported. An error is left to whatever reads the
    item.
    """
    if not path or len(stack) < len(path):
        return ""
    try:
        if not run.is_read:
            run.read()
        splitter = run.result(stack[len(path) - 1], "the text of an item")
        if splitter.items is None:
            return ""
        return run.reader.item_text(splitter.items, path[-1] - splitter.first)
    except Exception:  # noqa: BLE001 - whatever reads the item will raise it
        return ""
