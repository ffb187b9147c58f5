"""Keeps a task that was run again alone: as a run with this one task, in a store beside the others.

It is not in the store of the flow's runs, where it would be taken for the latest of them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from asyncflow import codec
from asyncflow._support.tracebacks import describe_exception
from asyncflow.client.namespaces import spin_store
from asyncflow.errors import ArtifactPickleError
from asyncflow.events.manifests import pack_manifest
from asyncflow.events.packing import pack_event
from asyncflow.events.types import (
    RunFailed,
    RunSucceeded,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
    from_microseconds,
)
from asyncflow.store import open_store
from asyncflow.store.artifacts import ArtifactWriter
from asyncflow.store.frames import frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.client import Task
    from asyncflow.events.types import Event
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.workers.process.single_task import SingleTask

_TASK = "1"


def keep_task(
    flow: type[FlowSpec],
    task: Task,
    single: SingleTask,
    seconds: float,
    error: BaseException | None,
) -> Task:
    """Store the task with all that it would pass on, or with its failure; the task as stored.

    Raises:
        StoreError: It cannot be written.
    """
    from asyncflow.client import Task

    codec.pickle_by_value(flow.__module__)
    place = spin_store(task.store)
    store = open_store(place, create=True)
    stored = store.make_run(flow.__name__)
    journal = stored.begin_journal(durable=False)
    try:
        started = from_microseconds(int(stored.run_id))
        about: dict[str, Any] = {"flow": flow.__name__, "run_id": stored.run_id, "time": started}
        with ArtifactWriter(stored.value_sink("engine")) as writer:
            first = replace(
                task._attempts.record.started,  # noqa: SLF001 - the view of it
                **about,
                graph=single.graph.to_data(),
                manifest=_manifest(writer, single.constants),
                origin_run_id=None,
                origin_step=None,
                pid=os.getpid(),
                code_ref=b"",
            )
            about["time"] = started + timedelta(seconds=seconds)
            of_task = {**about, "step": task.key.step, "task_id": _TASK, "attempt": 0}
            of_task |= {"path": task.key.path, "pid": os.getpid()}
            begun = {**of_task, "time": started, "item": task.item}
            events: list[Event] = [first, TaskStarted(**begun, seq=2)]
            events += (
                _success(about, of_task, seconds, _manifest(writer, single.artifacts))
                if error is None
                else _failure(about, of_task, seconds, error)
            )
        for event in events:
            journal.write(frame(pack_event(event)))
        journal.deliver()
    finally:
        journal.close()
        store.close()
    return Task(f"{flow.__name__}/{stored.run_id}/{task.key.step}/{_TASK}", store=place)


def _success(
    about: dict[str, Any], of_task: dict[str, Any], seconds: float, manifest: bytes
) -> list[Event]:
    return [
        TaskSucceeded(**of_task, seq=3, seconds=seconds, manifest=manifest),
        RunSucceeded(**about, seq=4, seconds=seconds),
    ]


def _failure(
    about: dict[str, Any], of_task: dict[str, Any], seconds: float, error: BaseException
) -> list[Event]:
    described = describe_exception(error)
    told: dict[str, Any] = {
        "exception_type": described.type,
        "message": described.message,
        "traceback": described.traceback,
        "seconds": seconds,
    }
    named = {name: of_task[name] for name in ("step", "task_id", "attempt")}
    return [
        TaskFailed(**of_task, **told, seq=3),
        RunFailed(**about, **named, **told, seq=4),
    ]


def _manifest(writer: ArtifactWriter, values: Mapping[str, Any]) -> bytes:
    found = {}
    for name, value in values.items():
        try:
            found[name] = writer.put(value, name=name)
        except ArtifactPickleError:  # an iterator that is used up; all others were tried before
            continue
    return pack_manifest(found)
