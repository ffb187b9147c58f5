"""What `dump` shows of artifacts' values, and what it writes of one into a file."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

from asyncflow.client import Artifact, Run, Step, Task
from asyncflow.errors import ArtifactError, AsyncflowError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path


class Values:
    """The values of artifacts as Python would write them, or as JSON."""

    def __init__(
        self,
        *,
        as_json: bool,
        include: Collection[str] = (),
        exclude: Collection[str] = (),
        most_bytes: int | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            as_json: For programs.
            include: Only artifacts of these names; of any where none is named.
            exclude: None of these names.
            most_bytes: A value whose stored form is longer is not shown; any is by default.
        """
        self._as_json = as_json
        self._include, self._exclude = include, exclude
        self._most_bytes = most_bytes
        self.untold: list[str] = []
        """Why some of the values could not be had or shown; the others are in the text."""

    def text(self, found: Run | Step | Task | Artifact) -> str:
        """All that there is of it.

        Raises:
            NotFoundError: There is no artifact: the task has not succeeded.
            ArtifactError: It is an artifact, and its value cannot be read, or not be shown.
        """
        if isinstance(found, Artifact):
            value = found.data
            try:
                return json.dumps(_json_value(value), indent=2) if self._as_json else repr(value)
            except Exception as error:
                raise ArtifactError(_not_shown(found, error), artifact=found.id) from error
        tasks = self._tasks(found)
        if self._as_json:
            each = {task.pathspec: self._json_values(task) for task in tasks}
            data = each if isinstance(found, Step) else next(iter(each.values()))
            return json.dumps(data, indent=2)
        return "\n\n".join("\n".join(self._lines(task)) for task in tasks)

    def pickled(self, found: Run | Step | Task) -> bytes:
        """A pickle of the values by the tasks' pathspecs and the artifacts' names, as Metaflow's.

        Raises:
            NotFoundError: There is no artifact: the task has not succeeded.
            ArtifactError: A value cannot be read, or not be pickled.
        """
        tasks = self._tasks(found)
        values = {task.pathspec: {each.id: each.data for each in self._of(task)} for task in tasks}
        try:
            return pickle.dumps(values)
        except Exception as error:
            message = f"the values of {found.pathspec} cannot be pickled: {error}"
            raise ArtifactError(message) from error

    def _tasks(self, found: Run | Step | Task) -> list[Task]:
        match found:
            case Step():
                tasks = list(found)
            case Run():
                tasks = [found.end_task] if found.end_task is not None else []
            case Task():
                tasks = [found]
        if not any(len(task.artifacts) for task in tasks):
            raise NotFoundError(_no_values(found))
        return tasks

    def _of(self, task: Task) -> Iterator[Artifact]:
        for artifact in task:
            if (
                artifact.id in (self._include or (artifact.id,))
                and artifact.id not in self._exclude
            ):
                yield artifact

    def _lines(self, task: Task) -> Iterator[str]:
        yield f"# {task.pathspec}"
        for artifact in self._of(task):
            yield f"{artifact.id} = {self._shown(artifact, repr, _in_brackets)}"

    def _json_values(self, task: Task) -> dict[str, Any]:
        return {each.id: self._shown(each, _json_value, _as_data) for each in self._of(task)}

    def _shown(
        self,
        artifact: Artifact,
        show: Callable[[object], Any],
        tell: Callable[[Artifact, str], Any],
    ) -> Any:
        if self._most_bytes is not None and artifact.size > self._most_bytes:
            return tell(artifact, f"of {artifact.size:,} bytes, more than --max-value-size")
        try:
            value = artifact.data
        except Exception as error:  # noqa: BLE001 - its class may raise anything
            known = isinstance(error, AsyncflowError)
            why = str(error) if known else f"{artifact.pathspec}: {_said(error)}"
            self.untold.append(why)
            return tell(artifact, why if self._as_json else "that cannot be read")
        try:
            return show(value)
        except Exception as error:  # noqa: BLE001 - so may its __repr__
            self.untold.append(_not_shown(artifact, error))
            return tell(artifact, f"that is there and cannot be shown: {_said(error)}")


def write_value(value: object, file: Path) -> bool:
    """Write a value that is a file's content by itself; False for any other value.

    Bytes are written as they are, text as UTF-8, and a figure of matplotlib or an image of Pillow
    as a picture of the kind that the file's suffix names.

    Raises:
        OSError: The file cannot be written to.
        ValueError: There is no suffix, or it names no kind of picture.
    """
    match value:
        case bytes() | bytearray() | memoryview():
            file.write_bytes(value)
        case str():
            file.write_bytes(value.encode("utf-8", "surrogateescape"))
        case _:
            return _write_picture(value, file)
    return True


def _write_picture(value: Any, file: Path) -> bool:
    kinds = {f"{each.__module__}.{each.__qualname__}" for each in type(value).__mro__}
    if "matplotlib.figure.Figure" in kinds:
        save = value.savefig
    elif "PIL.Image.Image" in kinds:
        save = value.save
    else:
        return False
    if not file.suffix:
        message = "it is a picture, and the file's name says by no suffix of which kind: try .png"
        raise ValueError(message)
    save(file)
    return True


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _not_shown(artifact: Artifact, error: Exception) -> str:
    return f"{artifact.pathspec} is there and cannot be shown: {_said(error)}"


def _in_brackets(artifact: Artifact, what: str) -> str:
    return f"<{artifact.type_name} {what}>"


def _as_data(artifact: Artifact, what: str) -> dict[str, str]:
    return {"type": artifact.type_name, "error": what}


def _no_values(found: Run | Step | Task) -> str:
    if isinstance(found, Run) and found.end_task is None:
        return f"{found.pathspec} has no data: its step 'end' has not succeeded; name another step"
    if isinstance(found, Run):
        return f"{found.pathspec} has no data: its step 'end' keeps nothing on self"
    return f"{found.pathspec} has no artifacts: it has not succeeded, or keeps nothing on self"


def _json_value(value: object) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return {"type": f"{type(value).__module__}.{type(value).__qualname__}", "repr": repr(value)}
    return value
