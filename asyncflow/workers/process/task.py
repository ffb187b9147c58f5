"""One task in its worker: what it inherits, the user's instance, and what it hands on.

A `RunView` is what a worker knows of a run, a `TaskView` one attempt of one of its tasks. What a
task inherits is read from the journal, by the offset of the task before it; values are read when
the step asks for them, and what it made or changed is written to the store when it has ended.
"""

from __future__ import annotations

import asyncio
import os
import sys
from array import array
from collections import OrderedDict
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast
from zlib import crc32

from asyncflow import codec
from asyncflow._support.tracebacks import past_own_frames
from asyncflow.errors import ArtifactPickleError, FlowError, JournalError, TransitionError
from asyncflow.events.manifests import pack_manifest, pack_ref, ref_of, unpack_manifest, unpack_ref
from asyncflow.events.packing import unpack_events
from asyncflow.events.records import MAX_TASK, unpack_result
from asyncflow.flow import loader
from asyncflow.flow.current import TaskContext, enter_task
from asyncflow.flow.graph import Fanout, Graph, Transition
from asyncflow.flow.join_inputs import Inputs, InputView, lock_of, refs_of
from asyncflow.flow.spec import artifacts_of, bind, check_items, initialize
from asyncflow.store.artifacts import ArtifactReader, ArtifactWriter
from asyncflow.store.files import read_file
from asyncflow.store.journal import HEADER, PREFIX_BYTES, JournalReader
from asyncflow.store.layout import Layout
from asyncflow.values import ArtifactRef, Encoding, Failure, Place
from asyncflow.workers.process.environment import (
    EnvironmentSnapshot,
    ProgramEnvironment,
    lasting_settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from asyncflow.events.types import RunStarted
    from asyncflow.flow.graph import Node
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.store.blobs import Later
    from asyncflow.store.change_detection import Loaded
    from asyncflow.workers.messages import Opening, StartTask
    from asyncflow.workers.process.artifact_threads import OffLoop

Stored = tuple[bytes, "int | None", bytes]

_LOADED_AT_ONCE_BYTES: Final = 64 << 10  # a thread costs as much as to unpickle so many
_NO_ENVIRONMENT: Final = nullcontext()
_KEPT_RESULTS: Final = 256  # a foreach reads one for all of its tasks
_COPIED_INLINE_BYTES: Final = 64  # a longer inline value passes on as a ref into the journal


@contextmanager
def ending_forks() -> Iterator[None]:
    """A process that the user's code forks within the block ends where it would leave the block.

    It is no worker, and has nothing to store and nothing to tell.
    """
    pid = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != pid:
            _end_fork(error)
        raise
    if os.getpid() != pid:
        _end_fork(SystemExit())


def _end_fork(error: BaseException) -> NoReturn:
    """End a process that a step has forked as the interpreter would, and touch nothing of ours."""
    code = error.code if isinstance(error, SystemExit) else 1
    if not (code is None or isinstance(code, int)):
        print(code, file=sys.stderr)  # noqa: T201 - as the interpreter does
        code = 1
    elif not isinstance(error, SystemExit):
        trace = past_own_frames(error.__traceback__)
        sys.excepthook(type(error), error.with_traceback(trace), trace)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 0xFF)


class RunView:
    """What a worker knows of a run: its flow class, its store, and the results others built on."""

    def __init__(self, order: Opening, pid: int) -> None:
        self.order = order
        self._pid = pid
        self._opened = False
        self._read = False
        self.has_own_class = False
        """Whether the flow class came with the run, and goes with it."""
        self._results: OrderedDict[int, Inherited] = OrderedDict()

    def read(self) -> None:
        """Read the run's first event, once: then its graph is known.

        Raises:
            StoreError: It cannot be read.
        """
        if self._read:
            return
        order = self.order
        layout = Layout.open(Path(order.store), create=False)
        self.run_dir = layout.run_dir(order.flow, order.run_id)
        with self.reading("its first event"):
            self.journal = JournalReader(self.run_dir / "journal")
            first = self.journal.read_one(len(HEADER))
        self.reader = ArtifactReader(layout, order.flow)
        self.writer = ArtifactWriter(
            layout, order.flow, order.run_id, f"w{self._pid}", durable=order.durable
        )
        (self.started,) = cast(
            "tuple[RunStarted]", tuple(unpack_events(first, order.flow, order.run_id))
        )
        self.graph = Graph.from_data(self.started.graph)
        self._read = True

    @property
    def is_open(self) -> bool:
        """Whether the run's flow class has been loaded."""
        return self._opened

    def open(self) -> bool:
        """Load the run's flow class, once; whether that was now.

        Raises:
            Exception: Whatever the user's module raises when it is imported.
        """
        if self._opened:
            return False
        self.read()
        ProgramEnvironment._make(self.order.surroundings).enter()
        with lasting_settings():
            self.flow_class = self._load(self.started.source)
        self.has_own_class = self.started.source["kind"] == "pickle"
        self.kept = EnvironmentSnapshot()  # with what the module itself has changed
        self.base = self.result(len(HEADER), "its parameters")
        self._opened = True
        return True

    def _load(self, source: Mapping[str, Any]) -> type[FlowSpec]:
        def unpickle(ref: Sequence[Any]) -> Any:
            return self.reader.load(ref_of(ref), name="the flow class").value

        cls = loader.load(source, unpickle)
        codec.pickle_by_value(cls.__module__)
        return cls

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""
        return f"{self.order.flow}/{self.order.run_id}"

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Within the block, an error of the journal says of which run it is, and what was read."""
        try:
            yield
        except (JournalError, OSError, ValueError, LookupError) as error:
            message = (
                f"the journal of {self.pathspec} cannot be read: {error}. It was read for {what}. "
                f"What else is affected: asyncflow verify {self.pathspec}"
            )
            raise JournalError(message) from error

    def result(self, offset: int, of: str) -> Inherited:
        """What the task whose record lies at `offset` handed on; `of` says what, in an error.

        Raises:
            JournalError: No such record is there.
        """
        kept = self._results.get(offset)
        if kept is None:
            with self.reading(of):
                kept = Inherited(self, offset)
            self._results[offset] = kept
            if len(self._results) > _KEPT_RESULTS:
                self._results.popitem(last=False)
        return kept

    def is_whole(self) -> bool:
        """Whether no step has closed the run's files."""
        return not self._read or (self.journal.is_whole() and self.writer.is_whole())

    def close(self) -> None:
        """Let the run's files go."""
        if self._read:
            self.writer.close()
            self.journal.close()


class _StoppedError(Exception):
    """What a task made is not wanted any more."""


class Inherited:
    """A finished task's record, read and checked once for all the tasks that follow it."""

    __slots__ = ("_run", "fanout", "items", "path", "refs", "step", "task_id")

    def __init__(self, run: RunView, offset: int) -> None:
        self._run = run
        record = run.journal.read_one(offset)
        result = unpack_result(record)
        self.step, self.task_id, self.path = result.step, result.task_id, tuple(result.path)
        self.fanout = result.fanout
        self.items = unpack_ref(result.items) if result.items else None
        self.refs = {
            name: self._pass_on(ref, record, offset)
            for name, ref in unpack_manifest(result.manifest).items()
        }

    def called(self, name: str) -> str:
        """The pathspec of one of the task's artifacts; the run's start has the parameters."""
        owner = f"{self.step}/{self.task_id}" if self.step else "parameters"
        return f"{self._run.pathspec}/{owner}/{name}"

    def load(self, name: str, later: Later | None = None) -> Any:
        """The value of one of the task's artifacts."""
        return self._run.reader.load(self.refs[name], self.called(name), later).value

    def _pass_on(self, ref: ArtifactRef, record: bytes, offset: int) -> ArtifactRef:
        """The ref as the next task hands it on: a longer inline value is left where it lies."""
        if ref.place != Place.INLINE or len(ref.data) <= _COPIED_INLINE_BYTES:
            return ref
        return ref._replace(
            place=int(Place.SEGMENT),
            digest=codec.digest(ref.data),
            file=f"{self._run.order.run_id}/journal",
            offset=offset + PREFIX_BYTES + record.index(ref.data),
            data=b"",
        )


class TaskView:
    """One task in its worker: what it inherits, the user's instance, and what it hands on.

    It is the `TaskState` that `asyncflow.flow` asks for.
    """

    def __init__(self, run: RunView, order: StartTask, off_loop: OffLoop | None = None) -> None:
        """Make the instance; an async step has an `off_loop`."""
        self._run, self._order = run, order
        self._off_loop = off_loop
        self._later = self._check_later if off_loop else None
        self._checks: list[Future[None]] = []
        self._loads: set[Future[Any]] = set()  # that go on in threads, waited for or not
        self._damage: BaseException | None = None
        self._stored: dict[str, tuple[object, ArtifactRef]] = {}
        self._stopped = False
        self.step = order.step
        self.graph = run.graph
        self.node: Node = run.graph[order.step]
        self.transition: Transition | None = None
        self._failed = False  # and its step's `@catch` has it handed on
        self._loaded: dict[str, Loaded] = {}
        self._inherited = self._origin()
        # What stands in the class is the run's, whatever a task said of it that was taken over.
        self._refs: dict[str, ArtifactRef] = {**self._inherited.refs, **run.base.refs}
        self.index = order.path[-1] if order.path else None
        self.flow = bind(run.flow_class, self)

    def _origin(self) -> Inherited:
        if self.node.is_join:
            return self._run.base
        at = int.from_bytes(self._order.inputs[:8], "little")
        return self._run.result(at, f"the artifacts that {self._pathspec} inherits")

    @property
    def _pathspec(self) -> str:
        return f"{self._run.pathspec}/{self.step}/{self._order.task_id}"

    def _context(self) -> TaskContext:
        started = self._run.started
        more = {"load": self._load_off_loop} if self._off_loop else {}
        return TaskContext(
            flow_name=self._run.order.flow,
            run_id=self._run.order.run_id,
            step_name=self.step,
            task_id=str(self._order.task_id),
            attempt=self._order.attempt,
            parameter_names=tuple(started.parameters),
            load_parameter=lambda name: self._run.base.load(name, self._later),
            tags=started.tags,
            origin_run_id=started.origin_run_id,
            graph=self.graph,
            **more,
        )

    # --- TaskState ---

    def names(self) -> Collection[str]:
        """The artifacts that the task has without having made them."""
        return self._refs.keys()

    def load(self, name: str) -> object:
        """The value of an inherited artifact."""
        base = self._run.base
        if name in base.refs:  # nobody can assign it, so nobody asks whether it has changed
            return base.load(name, self._later)
        ref = self._refs[name]
        adopted = ref is not self._inherited.refs.get(name)
        called = f"{self._pathspec}/{name}" if adopted else self._inherited.called(name)
        loaded = self._run.reader.load(ref, called, self._later)
        loaded.note()
        self._loaded[name] = loaded
        return loaded.value

    def forget(self, name: str) -> None:
        """The task no longer has this artifact."""
        self._refs.pop(name, None)
        self._loaded.pop(name, None)

    def adopt(self, name: str, ref: ArtifactRef) -> None:
        """Hand on an artifact of an input as it is."""
        self._refs[name] = ref

    def input(self) -> object:
        """The item of the innermost foreach that this task is for."""
        level = len(self._order.path) - 1
        order = self._order
        return item_of(self._run, self._pathspec, order.stack, order.path, level, self._later)

    def stack(self) -> list[tuple[int, int, object]]:
        """Index, count and item of every foreach around this task, outermost first."""
        order = self._order
        return stack_of(self._run, self._pathspec, order.stack, order.path, self._later)

    # --- running ---

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within the block, `current` and what `@environment` gives are of this task."""
        solo = self._off_loop is None
        variables = self._run.order.variables.get(self.step)
        environment = Environment(variables) if variables else _NO_ENVIRONMENT
        with enter_task(self._context(), solo=solo), environment:
            yield

    def call(self, shared: Mapping[str, Any]) -> None:
        """Run the user's method, with what it shares with other tasks."""
        initialize(self.flow)
        self._clear_caught()
        method = getattr(self.flow, self.step)
        method(*self._arguments(), **shared)

    async def call_async(self, shared: Mapping[str, Any]) -> None:
        """The same for an async step."""
        initialize(self.flow)
        self._clear_caught()
        method = getattr(self.flow, self.step)
        await method(*self._arguments(), **shared)

    def _clear_caught(self) -> None:
        """The artifact that would tell of a caught failure says that there is none."""
        options = self.node.options.get("catch")
        if isinstance(options, dict) and options["var"]:
            setattr(self.flow, options["var"], None)

    def catches(self, *, may_retry: bool) -> bool:
        """Whether the step's `@catch` is for a failure of this attempt, after which none follows.

        `may_retry` tells whether the exception is one that the step's `@retry` is for.
        """
        if self._order.caught or not self.node.catches or self.node.foreach is not None:
            return False
        return not (may_retry and self.node.is_retried(self._order.attempt))

    def hand_on(self, failed: Sequence[Any]) -> None:
        """End as a step whose failure is caught: with what is set by now, and with the failure.

        `failed` is attempt, type, message and traceback.
        """
        options = self.node.options["catch"]
        failure = Failure(self.step, str(self._order.task_id), *failed)
        if options["print_exception"]:
            print(failure.traceback or f"{failure.type}: {failure.message}", file=sys.stderr)  # noqa: T201 - into the task's log
        if options["var"]:
            setattr(self.flow, options["var"], failure)
        if self.node.foreach is not None:
            error = f"@catch cannot stand in for {self.step!r}: nothing is left to fan out over"
            raise TransitionError(error, step=self.step, file=self.node.file, line=self.node.line)
        self.transition = Transition(self.node.next, None) if self.node.next else None
        self._failed = True

    def _arguments(self) -> tuple[Inputs, ...]:
        return (self._inputs(),) if self.node.is_join else ()

    def _inputs(self) -> Inputs:
        offsets = self._input_offsets()
        run = self._run
        names = None
        if self.graph[str(self.node.joins)].fanout is Fanout.BRANCH:
            names = [run.result(offset, f"an input of {self._pathspec}").step for offset in offsets]
        return Inputs(names, len(offsets), lambda index: self._input_view(offsets, index))

    def _input_view(self, offsets: Sequence[int], index: int) -> InputView:
        of = f"the artifacts of input {index} of {self._pathspec}"
        inherited = self._run.result(offsets[index], of)
        return InputView(JoinInput(self._run, self._order, inherited, self._later))

    def _input_offsets(self) -> array[int]:
        data = self._order.inputs
        if self._order.inputs_at:
            file, checksum = self._order.inputs_at
            with self._run.reading(f"which tasks lead to {self._pathspec}"):
                path = self._run.run_dir / file
                data = read_file(path, most=MAX_TASK * 8)  # an offset for each task
                if crc32(data) != checksum:
                    message = f"{path} is damaged: it is not what was written"
                    raise JournalError(message)
        offsets = array("Q")
        offsets.frombytes(data)
        if sys.byteorder == "big":
            offsets.byteswap()
        return offsets

    # --- off the event loop ---

    def _check_later(self, digest: bytes, check: Callable[[], None]) -> None:
        going_on = self._off_loop.check(digest, check) if self._off_loop else None
        if going_on is not None:
            self._checks.append(going_on)

    async def checked(self) -> None:
        """Return once all that an async step has read is known to be right.

        Raises:
            ArtifactCorruptError: Something is not what was stored.
        """
        if self._checks and self._off_loop:
            try:
                await self._off_loop.checked(self._checks)
            except BaseException as error:  # damage, or it is cancelled
                self._damage = error
                raise

    async def damage(self) -> BaseException | None:
        """What `checked` raises or has raised: nothing that the task has made can be relied on."""
        with suppress(BaseException):
            await self.checked()
        return self._damage

    async def _load_off_loop(self, name: str, of: InputView | None) -> Any:
        """See `current.load`."""
        owner: FlowSpec | InputView = self.flow if of is None else of
        if not isinstance(of, InputView | None):
            raise FlowError(f"current.load takes one of the inputs of a join, not {of!r}")
        refs = self._refs if of is None else refs_of(of)
        ref = refs.get(name)
        takes_long = ref.size >= _LOADED_AT_ONCE_BYTES if ref else name == "input"
        if takes_long and name not in vars(owner) and self._off_loop:

            @ending_forks()
            def read() -> None:
                getattr(owner, name)

            # Whoever asks meanwhile waits here, and not in one of the few threads.
            async with lock_of(vars(owner), name, asyncio.Lock):
                if name not in vars(owner):
                    await self._off_loop.run(read, self._loads)
        return getattr(owner, name)

    async def loads_ended(self) -> None:
        """Return once none of the task's threads reads any more; cancelled meanwhile, only then."""
        if self._loads:
            from asyncflow.workers.process.artifact_threads import ended  # noqa: PLC0415 - start-up time: see `AsyncSteps`

            await ended(self._loads)

    async def store(self, is_kept: Callable[[], bool]) -> Stored:
        """`persist` in a thread.

        Cancelled: where `is_kept` says that what the task has set is handed on all the same, it is
        stored to the end; else the rest is not written. Nothing of it goes on.
        """
        if self._off_loop is None:
            return self.persist()
        self._stopped = False

        def stop() -> None:
            self._stopped = not is_kept()

        return await self._off_loop.to_the_end(self.persist, stop)

    def is_stored_at_once(self) -> bool:
        """Whether `persist` is over sooner than a thread begins with it."""
        if self._run.order.durable:
            return False
        values = artifacts_of(self.flow)
        foreach = self.transition.foreach if self.transition else None
        if foreach is not None and type(values.get(foreach)) not in {list, tuple}:
            return False  # a generator, say
        return codec.are_small(values.values())

    # --- storing ---

    @ending_forks()
    def persist(self) -> Stored:
        """Write what the task made or changed; the manifest, and what a foreach fans out over."""
        transition = self._checked_transition()
        values = artifacts_of(self.flow)
        fanout, items = None, b""
        if transition is not None and transition.foreach is not None:
            fanout, ref = self._put_items(transition.foreach, values)
            items = pack_ref(ref)
        for name, value in values.items():
            if name in self._run.base.refs:
                continue  # what the task did to its copy of a parameter or a constant ends with it
            self._go_on()
            try:
                self._refs[name] = self._put(name, value)
            except ArtifactPickleError as error:
                if not self._failed:
                    raise
                self._refs.pop(name, None)  # what it was before is not what the step had set
                print(f"Not kept: {error}", file=sys.stderr)  # noqa: T201 - into the task's log
        self._run.writer.sync()
        return pack_manifest(self._refs), fanout, items

    def _go_on(self) -> None:
        if self._stopped:
            raise _StoppedError

    def _checked_transition(self) -> Transition | None:
        if self.node.next and self.transition is None:
            message = f"the step {self.step!r} ended without self.next(...)"
            raise TransitionError(message, step=self.step, file=self.node.file, line=self.node.line)
        return self.transition

    def _put(self, name: str, value: object) -> ArtifactRef:
        if not self.node.catches:
            return self._put_now(name, value)
        # It may have failed while it stored this: what `@catch` hands on is not stored again.
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
            return self._refs[name]
        return self._run.writer.put_encoded(encoded, self._go_on)

    def _as_read(self, name: str, value: object) -> Loaded | None:
        """What is known of an artifact that the step has read, if it has not assigned another."""
        loaded = self._loaded.get(name)
        return loaded if loaded is not None and loaded.value is value else None

    def _is_unchanged(self, name: str, value: object) -> bool:
        loaded = self._as_read(name, value)
        return loaded is not None and self._changed(name, loaded) is None

    def _changed(self, name: str, loaded: Loaded) -> codec.Encoded | None:
        """What is to be stored of an artifact that the step has read; None if it is unchanged."""
        try:
            return loaded.changed(name)
        except ArtifactPickleError as error:
            if loaded.is_comparable:
                raise
            # Only what was stored can be handed on, and the step may have done no more than look.
            print(f"Handed on as it was read, even if it has changed: {error}", file=sys.stderr)  # noqa: T201 - into the task's log
            return None

    def _put_items(self, name: str, values: dict[str, Any]) -> tuple[int, ArtifactRef]:
        """Store what a foreach runs over, item by item; a plain list is stored this once.

        An inherited artifact stays as it is, unless the step has changed it.
        """
        inherited = self._refs.get(name)
        if (
            inherited is not None
            and inherited.encoding == Encoding.ITEMS
            and (name not in values or self._is_unchanged(name, values[name]))
        ):
            values.pop(name, None)
            return self._run.reader.item_count(inherited, f"{self._pathspec}/{name}"), inherited
        value = values[name] if name in values else getattr(self.flow, name)
        check_items(self, name, value)
        count, ref = self._run.writer.put_items(value, name=name, go_on=self._go_on)
        if type(value) in {list, tuple} or not hasattr(value, "__len__"):
            values.pop(name, None)
            # An iterator is used up now, and so has changed; what it gave is the artifact.
            if name not in self._run.base.refs and not self._is_unchanged(name, value):
                self._refs[name] = ref
        return count, ref


class JoinInput:
    """What a join can ask of one of its inputs."""

    __slots__ = ("_inherited", "_later", "_order", "_refs", "_run", "graph", "index", "step")

    def __init__(
        self, run: RunView, order: StartTask, inherited: Inherited, later: Later | None
    ) -> None:
        self._run, self._order, self._inherited, self._later = run, order, inherited, later
        # As for any task: what stands in the class is the run's.
        self._refs: dict[str, ArtifactRef] = {**inherited.refs, **run.base.refs}
        self.step, self.graph = inherited.step, run.graph
        self.index = inherited.path[-1] if inherited.path else None

    def load(self, name: str) -> object:
        """The value of one of the input's artifacts."""
        base = self._run.base
        return (base if name in base.refs else self._inherited).load(name, self._later)

    def refs(self) -> Mapping[str, ArtifactRef]:
        """The input's artifacts, unread."""
        return self._refs

    def input(self) -> object:
        """The item that the input was for."""
        return self.stack()[-1][2]

    def stack(self) -> list[tuple[int, int, object]]:
        """Index, count and item of every foreach around the input, outermost first."""
        stack, path = self._order.stack, self._inherited.path
        return stack_of(self._run, self._called, stack, path, self._later)

    @property
    def _called(self) -> str:
        return f"{self._run.pathspec}/{self.step}/{self._inherited.task_id}"


def stack_of(
    run: RunView, task: str, stack: Sequence[int], path: Sequence[int], later: Later | None
) -> list[tuple[int, int, object]]:
    """Index, count and item of every foreach on the path of a task, outermost first."""
    levels = []
    for level, (offset, index) in enumerate(zip(stack, path, strict=False)):
        fanout = run.result(offset, f"the foreach around {task}").fanout or 0
        levels.append((index, fanout, item_of(run, task, stack, path, level, later)))
    return levels


def item_of(
    run: RunView,
    task: str,
    stack: Sequence[int],
    path: Sequence[int],
    level: int,
    later: Later | None,
) -> object:
    """The item that one level of a task's path stands for."""
    if not 0 <= level < len(stack):
        return None
    splitter = run.result(stack[level], f"the item of {task}")
    if splitter.items is None:
        return None
    called = splitter.called(run.graph[splitter.step].foreach or "")
    return run.reader.load_item(splitter.items, path[level], called, later)


class Environment:
    """Sets environment variables within the block, and puts back what was there."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in self._variables}
        os.environ.update(self._variables)

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
