"""All that can be asked of a store, and what it answers: to compare before and after damage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from asyncflow import Artifact, Flow, Run, Task
from asyncflow.errors import AsyncflowError
from asyncflow.store.blobs import verified
from asyncflow.store.files import open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Refusal(NamedTuple):
    """An error in the place of an answer."""

    message: str


Answers = dict[tuple[str, str], object]
"""By pathspec and question."""


def look(store: Path, only: str = "", known: Answers | None = None) -> Answers:
    """Ask everything, as a process that has just started would; or of one run `only`.

    Of tasks and artifacts that are `known`, also by their names: that reads other bytes than
    listing them.
    """
    verified.clear()
    open_file.cache_clear()
    asked = _Asked()
    asked.ask("", "runs", lambda: _ids(store))
    for name in [only] if only else _ids(store):
        _look_at_run(store, name, asked.ask)
    for name in {name for name, question in known or () if question == "artifacts"}:
        if name.startswith(only):
            _look_straight(store, name, asked.ask)
    for name in {name for name, question in known or () if question == "kept"}:
        if name.startswith(only):
            _look_for_artifact(store, name, asked.ask)
    return asked.answers


class _Asked:
    """Answers as they come."""

    def __init__(self) -> None:
        self.answers: Answers = {}

    def ask(self, pathspec: str, question: str, answer: Callable[[], Any]) -> Any:
        """Ask one; None where it is refused."""
        try:
            found = answer()
        except AsyncflowError as error:
            self.answers[pathspec, question] = Refusal(str(error))
            return None
        self.answers[pathspec, question] = found
        return found


def _ids(store: Path) -> list[str]:
    flows = sorted(path.name for path in (store / "flows").iterdir())
    return [run.pathspec for flow in flows for run in Flow(flow, store=store)]


_OF_A_RUN = ("status", "tags", "created_at", "finished_at", "origin_run_id", "failure")
_OF_A_TASK = ("status", "attempt", "index", "path", "created_at", "finished_at", "seconds")
_PRINTED = ("exception", "stdout", "stderr", "origin_pathspec")


def _look_at_run(store: Path, name: str, ask: Callable[..., Any]) -> None:
    run = ask(name, "there", lambda: Run(name, store=store))
    if run is None:
        return
    for question in (*_OF_A_RUN, "task_count", "successful"):
        ask(name, question, lambda question=question: getattr(run, question))
    ask(name, "events", lambda: tuple(run.events()))
    ask(name, "steps", lambda: [(step.id, step.task_count) for step in run])
    ask(f"{name}/parameters/width", "data", lambda: run.parameters.width)
    for task in ask(name, "tasks", lambda: [each for step in run for each in step]) or ():
        _look_at_task(task, ask)


def _look_straight(store: Path, pathspec: str, ask: Callable[..., Any]) -> None:
    task = ask(pathspec, "there", lambda: Task(pathspec, store=store))
    if task is not None:
        _look_at_task(task, ask, " straight")


def _look_for_artifact(store: Path, pathspec: str, ask: Callable[..., Any]) -> None:
    """By its name alone, and of its task by three ways that lead to it."""
    artifact = ask(pathspec, "there", lambda: Artifact(pathspec, store=store))
    if artifact is not None:
        ask(pathspec, "data of it", lambda: _comparable(artifact.data))
        ask(pathspec, "age of it", lambda: artifact.created_at)
    owner, _, name = pathspec.rpartition("/")
    try:
        task = Task(owner, store=store)
    except AsyncflowError:
        return  # it was asked for, too
    ask(pathspec, "data by name", lambda: _comparable(task[name].data))
    ask(pathspec, "data by attribute", lambda: _comparable(getattr(task.data, name)))
    ask(pathspec, "size by attribute", lambda: getattr(task.artifacts, name).size)


def _look_at_task(task: Task, ask: Callable[..., Any], how: str = "") -> None:
    pathspec = task.pathspec
    for question in (*_OF_A_TASK, *_PRINTED):
        ask(pathspec, question + how, lambda question=question: getattr(task, question))
    ask(pathspec, f"parents{how}", lambda: [each.pathspec for each in task.parents])
    ask(pathspec, f"attempts{how}", lambda: [(it.status, it.stdout) for it in task.attempts()])
    for artifact in ask(pathspec, f"artifacts{how}", lambda: list(task)) or ():
        name = artifact.pathspec
        ask(name, f"kept{how}", lambda it=artifact: (it.type_name, it.size, it.sha))
        ask(name, f"data{how}", lambda it=artifact: _comparable(it.data))


def _comparable(value: object) -> object:
    """An object of a flow's own class has a class of its own each time that it is loaded."""
    return value if type(value).__module__ == "builtins" else (repr(type(value)), vars(value))


def differences(before: Answers, after: Answers) -> Iterator[tuple[str, str, object]]:
    """What is answered otherwise: pathspec, question, and the answer; a refusal as such."""
    for (pathspec, question), answer in after.items():
        if (pathspec, question) not in before or before[pathspec, question] != answer:
            yield pathspec, question, answer
