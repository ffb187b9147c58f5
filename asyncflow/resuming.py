"""What a run that is resumed takes over from the run that it resumes.

A finished task of the origin run is taken over as it is: its refs are written into the new run's
journal, and no value is read or copied. Which tasks those are follows from the origin's journal,
the new graph, and the step from which on all is to be run again, if one is named.

Everything is taken over before anything is run. A run that came to its end before that, by a crash
or by being cancelled, has not taken over all that it was to: the rest is found where it would have
found it, in the run that it resumed.
"""

from __future__ import annotations

from contextlib import suppress
from time import time
from typing import TYPE_CHECKING, cast

import msgpack

from asyncflow.errors import JournalError, ResumeError
from asyncflow.events import (
    RunStarted,
    RunSucceeded,
    TaskCloned,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    unpack_events,
    unpack_result,
)
from asyncflow.graph import Graph
from asyncflow.store.files import reason_of
from asyncflow.store.journal import JournalReader, is_being_written
from asyncflow.store.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from asyncflow.events import Result

    Key = tuple[str, tuple[int, ...]]

_HANDS_ON = {TaskSucceeded.code, TaskCloned.code}
# Not TaskRetried: a task that goes on waiting is told of while others are still being taken over.
_AFTER_TAKING_OVER = {TaskStarted.code, RunSucceeded.code}


def newest_run(layout: Layout, flow: str) -> str:
    """The run of a flow that was started last.

    Raises:
        ResumeError: There is none.
    """
    runs = layout.runs(flow)
    if not runs:
        message = f"{flow} has no run in {layout.root} that could be resumed"
        raise ResumeError(message)
    return runs[0]


class Origin:
    """The finished tasks of a run, by step and path."""

    def __init__(self, run_dir: Path, flow: str, run_id: str) -> None:
        """Read the run's journal once; a few hundred bytes are kept of each finished task.

        Raises:
            ResumeError: There is no such run, or it is still running.
            JournalError: Its journal is damaged.
        """
        self.run_id = run_id
        self._pathspec = f"{flow}/{run_id}"
        self._run_dir = run_dir
        path = run_dir / "journal"
        try:
            self._journal = JournalReader(path)
        except FileNotFoundError:
            message = Layout(run_dir.parents[2]).has_no_run(flow, run_id)
            raise ResumeError(message) from None
        except OSError as error:
            message = f"{flow}/{run_id} cannot be resumed: {path}: {reason_of(error)}"
            raise JournalError(message) from error
        if is_being_written(path):
            message = f"{flow}/{run_id} is still running: wait for its end, or cancel it"
            raise ResumeError(message)
        self.step: str | None = None
        """The step from which on nothing is taken over."""
        self._offsets: dict[tuple[str, tuple[int, ...]], int] = {}
        self._retries: dict[tuple[str, tuple[int, ...]], tuple[int, float]] = {}
        self._rest: Origin | None = None
        try:
            started = self._read(flow)
        except JournalError as error:
            message = (
                f"{flow}/{run_id} cannot be resumed: {error}. What is affected: asyncflow verify "
                f"{flow}/{run_id}. Resume an earlier run, or run the flow anew"
            )
            raise JournalError(message) from error
        if started is None:
            message = f"{flow}/{run_id} had not begun when it was broken off: run the flow anew"
            raise ResumeError(message)
        self.graph = Graph.from_data(started.graph)
        self.parameters: Mapping[str, str] = started.parameters
        self.tags = started.tags
        self.manifest: bytes = started.manifest
        if started.origin_run_id is not None and not self._complete:
            self._find_rest(run_dir.with_name(started.origin_run_id), flow, started)

    def _find_rest(self, run_dir: Path, flow: str, started: RunStarted) -> None:
        """The run was broken off before it had taken over all of its own origin."""
        with suppress(ResumeError):  # removed since: what is here has to do
            self._rest = Origin(run_dir, flow, run_dir.name)
            if started.origin_step is not None:
                self._rest.forget(following(self.graph, started.origin_step))

    def _read(self, flow: str) -> RunStarted | None:
        started: RunStarted | None = None
        self._complete = False
        for offset, record, _ in self._journal.read_from():
            code = record[1] if record[0] != _FIXARRAY_16 else record[3]
            self._complete = self._complete or code in _AFTER_TAKING_OVER
            if code in _HANDS_ON:
                result = unpack_result(record)
                self._offsets[result.step, tuple(result.path)] = offset
            elif code == TaskRetried.code:
                _, _, at, step, _, attempt, path, seconds, *_ = msgpack.unpackb(record)
                self._retries[step, tuple(path)] = attempt, at / 1e6 + seconds
            elif code == TaskFailed.code:
                self._fail(record, flow)
            elif code == RunStarted.code:
                (started,) = cast("tuple[RunStarted]", unpack_events(record, flow, self.run_id))
        return started

    def _fail(self, record: bytes, flow: str) -> None:
        """A task that had failed for good begins anew, with all its attempts."""
        for event in unpack_events(record, flow, self.run_id):
            if isinstance(event, TaskFailed) and not event.will_retry:
                self._retries.pop((event.step, event.path), None)

    def choose(self, graph: Graph, step: str | None) -> None:
        """Forget what cannot be taken over: the named step, and what follows it.

        Raises:
            ResumeError: A finished step leads elsewhere now, or there is no step of that name.
        """
        again = following(graph, step) if step is not None else set()
        if step is not None and step in self.graph:  # what followed it then is not needed any more
            again |= following(self.graph, step)
        finished = {name for name, _ in self} - again
        for name in self.graph.nodes:  # in their order: the first that differs is told
            if name in finished:
                self._check(graph, name)
        self.step = step
        self.forget(again)

    def forget(self, steps: Collection[str]) -> None:
        """Take nothing over of these steps."""
        self._offsets = {key: at for key, at in self._offsets.items() if key[0] not in steps}
        self._retries = {key: due for key, due in self._retries.items() if key[0] not in steps}
        if self._rest is not None:
            self._rest.forget(steps)

    def _check(self, graph: Graph, name: str) -> None:
        before = self.graph[name]
        if name not in graph:
            message = f"the step {name!r} had finished and is gone from the flow; run the flow anew"
            raise ResumeError(message)
        now = graph[name]
        if (before.next, before.foreach, before.is_join) != (now.next, now.foreach, now.is_join):
            message = (
                f"the step {name!r} had finished and led to {_leads(before)}; now it leads to "
                f"{_leads(now)}: name it to run it again, as in `asyncflow resume FILE {name}`"
            )
            raise ResumeError(message)

    def waiting(self) -> dict[tuple[str, tuple[int, ...]], tuple[int, float]]:
        """Of the tasks that waited for a retry: the attempt to come, and the seconds left."""
        now = time()
        rest = self._rest.waiting() if self._rest is not None else {}
        own = {key: (attempt, max(0.0, due - now)) for key, (attempt, due) in self._retries.items()}
        return {key: due for key, due in (rest | own).items() if key not in self._offsets}

    def __contains__(self, key: object) -> bool:
        return key in self._offsets or (self._rest is not None and key in self._rest)

    def __iter__(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from self._offsets
        for key in self._rest or ():
            if key not in self._offsets:
                yield key

    def __len__(self) -> int:
        return len(self._offsets) if self._rest is None else sum(1 for _ in self)

    def __bool__(self) -> bool:
        return bool(self._offsets or self._rest)

    def result(self, step: str, path: tuple[int, ...]) -> tuple[str, Result]:
        """In which run the task ended, and what it handed on."""
        at = self._offsets.get((step, path))
        if at is None and self._rest is not None:
            return self._rest.result(step, path)
        try:
            return self.run_id, unpack_result(self._journal.read_one(self._offsets[step, path]))
        except (JournalError, OSError) as error:  # it was whole a moment ago
            of = f"{step}{list(path)}" if path else step
            message = f"the artifacts of {of} cannot be taken over from {self._pathspec}: {error}"
            raise JournalError(message) from error

    def fanout(self, key: Key) -> int | None:
        """How many items a finished task has handed out."""
        return self.result(*key)[1].fanout

    def left(self) -> dict[Key, str]:
        """How the tasks stood that had begun and are not taken over."""
        found = self._rest.left() if self._rest is not None else {}
        for _, record, _ in self._journal.read_from():
            for event in unpack_events(record, "", ""):
                if isinstance(event, TaskStarted):
                    found[event.step, event.path] = "had not ended"
                elif isinstance(event, TaskFailed):
                    found[event.step, event.path] = (
                        "had been stopped" if event.was_stopped else "had failed"
                    )
        found |= dict.fromkeys(self.waiting(), "had to be tried again")
        return {key: how for key, how in found.items() if key not in self}

    def is_there(self) -> bool:
        """Whether the run, and all that it is told from, is still in the store."""
        there = self._run_dir.exists()
        return there and (self._rest is None or self._rest.is_there())

    def close(self) -> None:
        """Let the journal go."""
        self._journal.close()
        if self._rest is not None:
            self._rest.close()


_FIXARRAY_16 = 0xDC  # a msgpack array of more than 15 elements: its length takes two more bytes


def following(graph: Graph, step: str) -> set[str]:
    """A step and all that follow it.

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
    return f"{where} over {node.foreach!r}" if node.foreach else where
