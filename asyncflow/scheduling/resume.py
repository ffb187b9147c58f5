"""What a resumed run takes over from the run that it resumes.

A finished task of the origin is taken over as it is: its refs are written into the new run's
journal, and no value is read or copied. Which tasks are taken over follows from the origin's
journal, the new graph, and the step to run again from, if one is named.

Everything is taken over before any task runs, except tasks for items of a generator that had not
ended: these are taken over when the generator yields the items again. A run that ended earlier than
that, by a crash or because it was cancelled, has not taken everything over. The rest is then found
where that run would have found it: in the run that it resumed.
"""

from __future__ import annotations

from contextlib import suppress
from time import time
from typing import TYPE_CHECKING, Any, Final, cast

from asyncflow._quick_classes import NamedTuple
from asyncflow.codec.items import ENTRY_BYTES
from asyncflow.errors import GraphError, JournalError, RecordError, ResumeError
from asyncflow.events.drafts import event_of
from asyncflow.events.manifests import (
    is_whole,
    moved,
    pack_manifest,
    unpack_manifest,
    unpack_ref,
    unpack_told,
)
from asyncflow.events.records import (
    CLONED,
    FAILED,
    HANDING_ON,
    RETRIED,
    RUN_STARTED,
    STARTED,
    YIELDED,
    code_of,
    digests_of,
    fields_of,
    head_of,
    item_text_in,
    result_of,
    retry_of,
    unpack_known_result,
    was_stopped,
    will_retry,
)
from asyncflow.events.types import RunStarted, RunSucceeded
from asyncflow.flow.delayed_values import has_configs
from asyncflow.flow.graph import Graph
from asyncflow.flow.graph_reader import prepare
from asyncflow.store.artifacts import ArtifactReader
from asyncflow.store.files import reason_of
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.store.manifests import JournalManifests, is_base
from asyncflow.store.run_tags import changed_tags
from asyncflow.values import ITEM_DIGEST_BYTES, Outcome, Place

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from asyncflow.events.manifests import Told
    from asyncflow.events.records import Result
    from asyncflow.events.types import TaskYielded
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.store.interface import RunStore, StoredRun

    Key = tuple[str, tuple[int, ...]]

# Not TaskRetried: the retry of a waiting task is recorded while others are still taken over.
_AFTER_TAKING_OVER = {STARTED, RunSucceeded.code}
_FEW_ITEMS = 1000  # of a foreach: checking stored items is not worth more
# the longest chain of runs, none of which has taken over everything from the one before
_MOST_ORIGINS = 64


def newest_run(store: RunStore, flow: str) -> str:
    """The flow's run that was started last.

    Raises:
        ResumeError: There is none.
    """
    newest = next(store.newest_runs(flow), None)
    if newest is None:
        message = f"{flow} has no run in {store.location} that could be resumed"
        raise ResumeError(message)
    return newest


class TakenTask(NamedTuple):
    """A finished task of an origin, as its record says."""

    origin: OriginRun
    """The run in which it has ended."""
    offset: int
    """Where that run's journal has the record."""
    result: Result

    def manifest(self) -> bytes:
        """Its manifest for the journal of the new run; blocks on the disk.

        If it changes one that was taken over before, it changes that one there. Else it changes
        that of a task that changed the same one, and the first such task says everything.

        Raises:
            JournalError: The origin's journal is damaged.
        """
        manifest = self.result.outcome.manifest
        if is_whole(manifest):
            return manifest
        try:
            told = unpack_told(manifest)
            base = self.origin.clones.get(told.base)
            if base is None:
                sibling = self.origin.siblings.get(told.base)
                if sibling is not None:
                    return self.origin.manifests.from_sibling(told, *sibling)
                return pack_manifest(self.origin.manifests.said_again(manifest))
        except (JournalError, OSError) as error:
            raise self.origin.not_taken(self.result.step, self.result.path, error) from error
        return moved(told, base)

    def note(self, manifest: bytes, at: int) -> None:
        """Note that the new run's journal has the task with this manifest at this offset."""
        if is_base(manifest):
            self.origin.clones[self.offset] = at
        if is_whole(manifest) and not is_whole(self.result.outcome.manifest):
            told = unpack_told(self.result.outcome.manifest)
            self.origin.siblings.setdefault(told.base, (told, at))


class OriginRun:
    """The finished tasks of a run, by step and path."""

    def __init__(self, run: StoredRun, *, resumers: tuple[str, ...] = ()) -> None:
        """Read the run's journal once; keeps a few hundred bytes of each finished task.

        `resumers` are the runs that lead to this one; each is the origin of the one before.

        Raises:
            ResumeError: There is no such run, or it is still running.
            JournalError: Its journal is damaged.
        """
        flow, run_id = run.flow, run.run_id
        self.run_id = run_id
        self._pathspec = run.pathspec
        self._run = run
        try:
            self._journal = run.open_journal()
        except FileNotFoundError:
            message = run.store.has_no_run(flow, run_id)
            raise ResumeError(message) from None
        except OSError as error:
            message = f"{flow}/{run_id} cannot be resumed: {run.journal_place}: {reason_of(error)}"
            raise JournalError(message) from error
        if run.is_being_written():
            message = f"{flow}/{run_id} is still running: wait for its end, or cancel it"
            raise ResumeError(message)
        self.manifests: Final = JournalManifests(self._journal.read_one, run.journal_file)
        self.clones: dict[int, int] = {}
        """For records that other manifests may change: where the new run's journal has the same."""
        self.siblings: dict[int, tuple[Told, int]] = {}
        """For bases that were not taken over: how a task changed one, and where all of it is."""
        self.step: str | None = None
        """The step from which on nothing is taken over."""
        self._offsets: dict[tuple[str, tuple[int, ...]], int] = {}
        self._item_texts: dict[Key, str] = {}
        self._retries: dict[tuple[str, tuple[int, ...]], tuple[int, float, float]] = {}
        self._items: dict[Key, bytearray] = {}  # the digests of what a generator had yielded
        self._changed: dict[tuple[int, ...], set[str]] = {}
        """Items that are others now: for the path of an item's task, the steps that follow it."""
        self._failed: set[Key] = set()  # for good
        self._rest: OriginRun | None = None
        try:
            started = self._read(flow)
            self._check_origin(started, (*resumers, run_id))
        except (JournalError, GraphError) as error:
            message = (
                f"{flow}/{run_id} cannot be resumed: {error}. What is affected: asyncflow verify "
                f"{flow}/{run_id}. Resume an earlier run, or start the flow again"
            )
            raise JournalError(message) from error
        if started is None:
            message = f"{flow}/{run_id} was interrupted before it began: start the flow again"
            raise ResumeError(message)
        self.parameters: Mapping[str, str] = started.parameters
        self._first_tags = started.tags
        self.key = started.key
        """The key that names the run; empty for none."""
        self.trace: Mapping[str, str] = started.trace
        """Its `RunStarted.trace`."""
        self.manifest: bytes = started.manifest
        if started.origin_run_id is not None and (not self._complete or self._has_generators()):
            self._find_rest(started.origin_run_id, started, resumers)

    @property
    def tags(self) -> tuple[str, ...]:
        """The run's own tags, as they are now.

        Raises:
            JournalError: They were changed, and cannot be read.
        """
        changed = changed_tags(self._run)
        return self._first_tags if changed is None else changed

    def prepared(self, flow: type[FlowSpec], environ: Mapping[str, str]) -> type[FlowSpec]:
        """The flow with the configurations that this run has.

        Raises:
            ParameterError: A configuration that is new since then has no value.
            ArtifactError: A value cannot be read.
        """
        if has_configs(flow):
            from asyncflow.flow.configuration import configured_from

            refs = unpack_manifest(self.manifest)
            reader = ArtifactReader(self._run.store.value_source(self._run.flow))

            def load(name: str) -> Any:
                return reader.load(refs[name], f"{self._pathspec}/parameters/{name}").value

            flow = configured_from(flow, load, refs, environ)
        return prepare(flow)

    def _check_origin(self, started: RunStarted | None, runs: tuple[str, ...]) -> None:
        if started is None:
            return
        self.graph = Graph.from_data(started.graph)
        if started.origin_step is not None and started.origin_step not in self.graph:
            message = f"it was resumed from a step {started.origin_step!r}, which it does not have"
            raise JournalError(message)
        if started.origin_run_id in runs or len(runs) > _MOST_ORIGINS:
            message = (
                f"the chain of runs that it resumes is a circle, or longer than {_MOST_ORIGINS:,}"
            )
            raise JournalError(message)

    def _has_generators(self) -> bool:
        """Whether an earlier run may have finished tasks for items that were not taken over here.

        That happens while a generator runs, also to its end if the run is cancelled meanwhile.
        """
        return bool(self._items) or any(
            node.foreach is not None
            and (node.depth or self.graph.in_loop(node.name) or (node.name, ()) not in self)
            for node in self.graph
        )

    @property
    def yields(self) -> bool:
        """Whether a generator had not ended here, or in a run before that is needed, too."""
        return bool(self._yielding) or (self._rest is not None and self._rest.yields)

    def _find_rest(self, origin: str, started: RunStarted, resumers: tuple[str, ...]) -> None:
        """Read further origins, because the run ended before it had taken everything over."""
        with suppress(ResumeError):  # removed since: use what is here
            runs = (*resumers, self.run_id)
            self._rest = OriginRun(self._run.store.run(started.flow, origin), resumers=runs)
            if started.origin_step is not None:
                self._rest.forget(following(self.graph, started.origin_step))
            if self._complete and not self._rest.yields:
                self._rest.close()
                self._rest = None

    def _read(self, flow: str) -> RunStarted | None:
        started: RunStarted | None = None
        self._complete = False
        fanning_out: set[Key] = set()
        for offset, record, _ in self._journal.read_from():
            code = code_of(record)
            self._complete = self._complete or code in _AFTER_TAKING_OVER
            if code in HANDING_ON:
                values = fields_of(record)
                result = result_of(values)
                self._check_fanout(result)
                self._offsets[result.step, tuple(result.path)] = offset
                fanning_out.discard((result.step, tuple(result.path)))
                if code == CLONED:
                    self._note_item(values)
            elif code == STARTED:
                self._note_item(fields_of(record))
            elif code == YIELDED:
                fanning_out.add(self._read_items(fields_of(record)))
            elif code == RETRIED:
                values = fields_of(record)
                step, _, attempt, path = head_of(values)
                self._retries[step, tuple(path)] = attempt, *retry_of(values)
            elif code == FAILED:
                self._fail(fields_of(record))
            elif code == RUN_STARTED:
                started = cast("RunStarted", event_of(fields_of(record), flow, self.run_id))
        # A generator that has not ended has not announced all items whose tasks had finished.
        self._complete = self._complete and not fanning_out
        self._yielding = fanning_out
        return started

    def _note_item(self, values: list[Any]) -> None:
        if text := item_text_in(values):
            step, _, _, path = head_of(values)
            self._item_texts[step, tuple(path)] = text

    def _read_items(self, values: list[Any]) -> Key:
        step, _, _, path = head_of(values)
        index, digests = digests_of(values)
        known = self._items.setdefault((step, tuple(path)), bytearray())
        if ITEM_DIGEST_BYTES * index <= len(known):  # else an earlier version has written the rest
            known[ITEM_DIGEST_BYTES * index :] = digests
        return step, tuple(path)

    def compare(self, event: TaskYielded) -> None:
        """Compare items that a generator yields now with those that it had yielded.

        What had been done for another item is not taken over.
        """
        before = self._items.get((event.step, event.path))
        if self._rest is not None:
            self._rest.compare(event)
        if before is None:
            return
        for number in range(len(event.digests) // ITEM_DIGEST_BYTES):
            index = event.index + number
            known = before[ITEM_DIGEST_BYTES * index : ITEM_DIGEST_BYTES * (index + 1)]
            if not event.digests.startswith(known, ITEM_DIGEST_BYTES * number):
                steps = self._changed.setdefault((*event.path, index), set())
                steps |= self.graph.within(event.step)

    def _is_changed(self, key: Key) -> bool:
        step, path = key
        ends = range(1, len(path) + 1)
        return any(step in self._changed.get(path[:end], ()) for end in ends)

    def _check_fanout(self, result: Result) -> None:
        """Check that as many items are stored as the record says: the plan has a place for each.

        Raises:
            RecordError: There are fewer.
        """
        count = result.outcome.fanout or 0
        if count <= _FEW_ITEMS:  # nor has a gang more nodes than that
            return
        if not result.outcome.items:
            raise RecordError(f"{result.step}/{result.task_id} has stored no items")
        ref = unpack_ref(result.outcome.items)
        size = ref.size
        if ref.place == Place.BLOB:
            with suppress(OSError):
                size = min(size, self._run.store.blob_size(ref.digest))
        if size < count * ENTRY_BYTES:
            message = f"{result.step}/{result.task_id} has stored fewer than the {count} items"
            raise RecordError(f"{message} that it is said to have")

    def _fail(self, values: list[Any]) -> None:
        """Let a task that failed for good begin anew, with all its attempts."""
        if not will_retry(values):
            step, _, _, path = head_of(values)
            self._retries.pop((step, tuple(path)), None)
            self._failed.add((step, tuple(path)))

    def choose(self, graph: Graph, step: str | None) -> None:
        """Drop tasks that cannot be taken over: those of the named step, and of all steps after it.

        Raises:
            ResumeError: A finished step now leads to other steps, or the named step does not exist.
        """
        again = following(graph, step) if step is not None else set()
        # the steps that used to follow it are not needed any more
        if step is not None and step in self.graph:
            again |= following(self.graph, step)
        finished = {name for name, _ in self} - again
        # in order, so that the error names the first step that differs
        for name in self.graph.nodes:
            if name in finished:
                self._check(graph, name)
        self.step = step
        self.forget(again)

    def forget(self, steps: Collection[str]) -> None:
        """Take over no task of these steps."""
        self._offsets = {key: at for key, at in self._offsets.items() if key[0] not in steps}
        self._retries = {key: due for key, due in self._retries.items() if key[0] not in steps}
        if self._rest is not None:
            self._rest.forget(steps)

    def _check(self, graph: Graph, name: str) -> None:
        before = self.graph[name]
        if name not in graph:
            message = (
                f"the step {name!r} had finished and is gone from the flow; start the flow again"
            )
            raise ResumeError(message)
        now = graph[name]
        if (before.next, before.fanout, before.is_join) != (now.next, now.fanout, now.is_join) or (
            before.foreach != now.foreach or before.condition != now.condition
        ):
            message = (
                f"the step {name!r} had finished and led to {_leads(before)}; now it leads to "
                f"{_leads(now)}: name it to run it again, as in `asyncflow resume FILE {name}`"
            )
            raise ResumeError(message)

    def waiting(self) -> dict[tuple[str, tuple[int, ...]], tuple[int, float]]:
        """For tasks that waited for a retry: the next attempt, and the seconds left."""
        now = time()
        before = self._rest.waiting() if self._rest is not None else {}
        rest = {key: due for key, due in before.items() if key not in self._failed}
        own = {
            # The clock may have been set back since: nobody waits longer than was ordered.
            key: (attempt, max(0.0, min(seconds, ordered + seconds - now)))
            for key, (attempt, ordered, seconds) in self._retries.items()
        }
        return {key: due for key, due in (rest | own).items() if key not in self._offsets}

    def __contains__(self, key: object) -> bool:
        if key in self._offsets and not (self._changed and self._is_changed(key)):
            return True
        return self._rest is not None and key in self._rest

    def __iter__(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from self._offsets
        for key in self._rest or ():
            if key not in self._offsets:
                yield key

    def __len__(self) -> int:
        return len(self._offsets) if self._rest is None else sum(1 for _ in self)

    def __bool__(self) -> bool:
        return bool(self._offsets or self._rest)

    def result(self, step: str, path: tuple[int, ...]) -> TakenTask:
        """The result of a finished task."""
        at = self._offsets.get((step, path))
        if self._changed and self._is_changed((step, path)):
            at = None
        if at is None and self._rest is not None:
            return self._rest.result(step, path)
        try:
            at = self._offsets[step, path]
            record = self._journal.read_one(at)
            return TakenTask(self, at, unpack_known_result(record))
        except (JournalError, OSError) as error:  # it was whole a moment ago
            raise self.not_taken(step, path, error) from error

    def not_taken(self, step: str, path: Sequence[int], error: Exception) -> JournalError:
        """The error for a finished task whose artifacts cannot be read."""
        of = f"{step}{list(path)}" if path else step
        return JournalError(
            f"the artifacts of {of} cannot be taken over from {self._pathspec}: {error}. "
            f"What else is affected: asyncflow verify {self._pathspec}"
        )

    def begin(self, manifest: bytes) -> None:
        """Note what the first event of the new run says."""
        if manifest == self.manifest:
            self.clones[FIRST_RECORD] = FIRST_RECORD
        if self._rest is not None:
            self._rest.begin(manifest)

    def item_text(self, step: str, path: tuple[int, ...]) -> str:
        """The short text of the task's item, if it has one."""
        text = self._item_texts.get((step, path), "")
        return text or (self._rest.item_text(step, path) if self._rest is not None else "")

    def outcome(self, key: Key) -> Outcome:
        """The result of a finished task."""
        return self.result(*key).result.outcome

    def unfinished(self) -> dict[Key, str]:
        """The states of tasks that had begun and are not taken over."""
        found = self._rest.unfinished() if self._rest is not None else {}
        for _, record, _ in self._journal.read_from():
            code = code_of(record)
            if code in {STARTED, FAILED}:
                values = fields_of(record)
                step, _, _, path = head_of(values)
                found[step, tuple(path)] = _how_it_was_left(values)
        found |= dict.fromkeys(self.waiting(), "had to be tried again")
        return {key: how for key, how in found.items() if key not in self}

    def is_there(self) -> bool:
        """Whether the run and all its own origins are still in the store."""
        there = self._run.is_there()
        return there and (self._rest is None or self._rest.is_there())

    def close(self) -> None:
        self._journal.close()
        if self._rest is not None:
            self._rest.close()


def _how_it_was_left(values: list[Any]) -> str:
    if values[0] == STARTED:
        return "had not ended"
    return "had been stopped" if was_stopped(values) else "had failed"


def following(graph: Graph, step: str) -> set[str]:
    """A step and all steps after it.

    Raises:
        ResumeError: There is no step of that name.
    """
    if step not in graph:
        message = f"the flow has no step {step!r}; it has {', '.join(graph.nodes)}"
        raise ResumeError(message)
    found, waiting = {step}, [step]
    while waiting:
        for name in graph[waiting.pop()].next:
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _leads(node: Any) -> str:
    where = ", ".join(node.next) or "nothing"
    if node.num_parallel:
        return f"a gang of {where}"
    if node.condition:
        return f"one of {where} by {node.condition!r}"
    return f"{where} over {node.foreach!r}" if node.foreach else where
