"""The text of artifacts' values for `dump`, and the files that it writes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from asyncflow._support.suggestions import did_you_mean
from asyncflow.client import Artifact, Run, Step, Task
from asyncflow.codec import type_name
from asyncflow.errors import ArtifactError, AsyncflowError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from asyncflow.codec import Chunk


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
            as_json: Write JSON, for programs.
            include: Show only artifacts of these names; of any name if empty.
            exclude: Show no artifacts of these names.
            most_bytes: Show no value whose stored form is longer; by default any length is shown.
        """
        self._as_json = as_json
        self._include, self._exclude = include, exclude
        self._most_bytes = most_bytes
        # by cause: the first message, and how many there are
        self._missing: dict[str, tuple[str, int]] = {}

    def text(self, found: Run | Step | Task | Artifact) -> str:
        """The text of one artifact, or of all artifacts of a task, step or run.

        Raises:
            NotFoundError: There is no artifact: the task has not succeeded.
            ArtifactError: The one artifact cannot be read or shown.
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

    def pickled(self, found: Run | Step | Task | Artifact) -> bytes:
        """Pickle the values by `RUN/STEP/TASK` and the artifacts' names, as Metaflow does.

        The pickle can be read wherever cloudpickle is installed: it contains the classes of the
        flow's own file. A value that cannot be read or pickled is left out; `problems` says why.

        Raises:
            NotFoundError: There is no artifact: the task has not succeeded.
        """
        if isinstance(found, Artifact):
            each = [(found.parent.pathspec, [found])]
        else:
            each = [(task.pathspec, list(self._of(task))) for task in self._tasks(found)]
        kept = {task: dict(self._readable(artifacts)) for task, artifacts in each}
        try:
            return _pickle(_without_flow(kept))
        except Exception:  # noqa: BLE001 - a value's own methods may raise anything
            for task, values in kept.items():
                kept[task] = {
                    name: value
                    for name, value in values.items()
                    if self._can_pickle(f"{task}/{name}", value)
                }
        return _pickle(_without_flow(kept))

    def write(self, found: Run | Step | Task | Artifact, file: Path) -> None:
        """Write one value as the kind of file that the suffix names; several as text or JSON.

        Raises:
            OSError: The file cannot be written.
            ValueError: A picture needs a suffix that names a kind of picture.
            click.UsageError: The value cannot be written as such a file; nothing was written.
            NotFoundError: There is no artifact: the task has not succeeded.
            ArtifactError: The one artifact cannot be read or shown.
        """
        suffix = file.suffix.lower()
        if isinstance(found, Artifact) and not self._as_json:
            write_value(found.data, file)
            return
        if not self._as_json and suffix in _PICKLES:
            file.write_bytes(self.pickled(found))
            return
        self._as_json = self._as_json or suffix == ".json"
        if not self._as_json and suffix not in _TEXTS:
            message = (
                f"the values of {found.pathspec} cannot be written as {file.name}: give a file "
                "with one of the suffixes .txt, .json, .pkl, or name one artifact"
            )
            raise click.UsageError(message)
        file.write_bytes(f"{self.text(found)}\n".encode())

    def _readable(self, artifacts: Iterable[Artifact]) -> Iterator[tuple[str, Any]]:
        for artifact in artifacts:
            try:
                yield artifact.id, artifact.data
            except Exception as error:  # noqa: BLE001 - its class may raise anything
                self._miss(_not_read(artifact, error), error)

    def _can_pickle(self, pathspec: str, value: object) -> bool:
        try:
            _pickle(value)
        except Exception as error:  # noqa: BLE001 - its class may raise anything
            self._miss(f"{pathspec} cannot be pickled: {_said(error)}", error)
            return False
        return True

    @property
    def problems(self) -> list[str]:
        """Why some of the values could not be read or shown; the others are in the text.

        Values that fail for the same cause share one line, which counts them.
        """
        return [
            f"{why}; {count - 1:,} more for the same cause" if count > 1 else why
            for why, count in self._missing.values()
        ]

    def _miss(self, why: str, error: Exception) -> None:
        cause = error.__cause__ if isinstance(error, AsyncflowError) else error
        key = why if cause is None else _said(cause)
        first, count = self._missing.get(key, (why, 0))
        self._missing[key] = first, count + 1

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
        self._check_included(tasks)
        return tasks

    def _check_included(self, tasks: Iterable[Task]) -> None:
        missing, known = set(self._include), dict[str, None]()
        for task in tasks:
            if not missing:
                return
            names = [artifact.id for artifact in task]
            missing.difference_update(names)
            known.update(dict.fromkeys(names))
        for name in self._include:
            if name in missing:
                hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
                message = f"--include: there is no artifact {name!r}{hint}"
                raise click.UsageError(message)

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
            why = _not_read(artifact, error)
            self._miss(why, error)
            return tell(artifact, why if self._as_json else "that cannot be read")
        try:
            return show(value)
        except Exception as error:  # noqa: BLE001 - so may its __repr__
            self._miss(_not_shown(artifact, error), error)
            return tell(artifact, f"that is there and cannot be shown: {_said(error)}")


def stored_bytes(found: Run | Step | Task | Artifact) -> Chunk:
    """The bytes of one artifact as they are stored, checked against their hash.

    Raises:
        click.UsageError: It is not an artifact.
        ArtifactError: They are gone or damaged.
    """
    if not isinstance(found, Artifact):
        message = f"--raw writes one artifact: name it behind {found.pathspec}"
        raise click.UsageError(message)
    return found._place.artifacts.load_bytes(found._ref, found.pathspec)  # noqa: SLF001 - its view


def look_beside(found: Run | Step | Task | Artifact) -> None:
    """Make modules beside the flow's file importable, as a last resort: values may need them.

    This needs no more trust than before: unpickling a value runs whatever the store says.
    """
    from asyncflow.flow.loader import import_root

    view: Any = found
    while not isinstance(view, Run):
        view = view.parent
    try:
        source = view._record.started.source  # noqa: SLF001 - both classes are one concept
    except AsyncflowError:  # reading a value reports a damaged journal
        return
    file = source.get("file")
    if not isinstance(file, str) or "\0" in file or not Path(file).is_absolute():
        return
    root = import_root(Path(file))
    if root.is_dir() and str(root) not in sys.path:
        sys.path.append(str(root))


def write_value(value: Any, file: Path) -> None:
    """Write a value as the kind of file that the suffix names.

    Whatever the suffix, bytes are written unchanged, text as UTF-8, and a figure of matplotlib or
    an image of Pillow as a picture of that kind.

    Raises:
        OSError: The file cannot be written.
        ValueError: A picture needs a suffix that names a kind of picture.
        click.UsageError: The value cannot be written as such a file; nothing was written.
    """
    suffix = file.suffix.lower()
    match value:
        case bytes() | bytearray() | memoryview():
            file.write_bytes(value)
        case str():
            file.write_bytes(value.encode("utf-8", "surrogateescape"))
        case _ if suffix in _PICKLES:
            file.write_bytes(_made(_pickle, value, file))
        case _ if _write_picture(value, file):
            pass
        case _ if suffix in _TEXTS:
            file.write_text(f"{value!r}\n", encoding="utf-8")
        case _ if suffix == ".json":
            file.write_text(f"{_made(_json_text, value, file)}\n", encoding="utf-8")
        case _ if suffix == ".npy" and _is_array(value):
            import numpy as np  # the value's class has imported it

            with file.open("wb") as writing:
                np.save(writing, value, allow_pickle=False)
        case _ if (to := _method(value, suffix)) is not None:
            made = _made(lambda _: to(), value, file)
            file.write_bytes(made.encode() if isinstance(made, str) else made)
        case _:
            raise _unwritable(value, file)


_TEXTS: Final = ("", ".txt")
_PICKLES: Final = (".pkl", ".pickle")


def _made(make: Callable[[Any], Any], value: object, file: Path) -> Any:
    try:
        return make(value)
    except Exception as error:
        raise _unwritable(value, file, error) from error


def _unwritable(value: object, file: Path, error: Exception | None = None) -> click.UsageError:
    kinds = [".pkl", ".txt", ".json (what JSON can say)"]
    kinds += [".npy"] if _is_array(value) else []
    kinds += [kind for kind in (".csv", ".parquet") if _method(value, kind) is not None]
    why = "" if error is None else f" ({_said(error)})"
    message = (
        f"a value of type {type_name(value)} cannot be written as {file.name}{why}: "
        f"give a file with one of the suffixes {', '.join(kinds)}"
    )
    return click.UsageError(message)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return (
        numpy is not None
        and isinstance(value, numpy.ndarray | numpy.generic)
        and not value.dtype.hasobject
    )


def _method(value: Any, suffix: str) -> Callable[[], Any] | None:
    """The method with which a frame of pandas or of Polars writes such a file, if there is one."""
    if suffix not in {".csv", ".parquet"}:
        return None
    kind = suffix[1:]
    to = getattr(value, f"to_{kind}", None)
    if callable(to):
        return to  # type: ignore[no-any-return]  # of another library
    write = getattr(value, f"write_{kind}", None)
    if not callable(write):
        return None

    def written() -> bytes:
        sink = io.BytesIO()
        write(sink)
        return sink.getvalue()

    return written


def _json_text(value: object) -> str:
    return json.dumps(value, indent=2, allow_nan=False)


def _pickle(value: object) -> bytes:
    """A pickle that contains the code of classes that nobody could import."""
    import cloudpickle

    pickled: bytes = cloudpickle.dumps(value)
    return pickled


def _write_picture(value: Any, file: Path) -> bool:
    kinds = {f"{each.__module__}.{each.__qualname__}" for each in type(value).__mro__}
    if "matplotlib.figure.Figure" in kinds:
        save = value.savefig
    elif "PIL.Image.Image" in kinds:
        save = value.save
    else:
        return False
    if not file.suffix:
        message = (
            "it is a picture, but the file's name has no suffix that says which kind: try .png"
        )
        raise ValueError(message)
    save(file)
    return True


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _not_read(artifact: Artifact, error: Exception) -> str:
    known = isinstance(error, AsyncflowError)
    return str(error) if known else f"{artifact.pathspec}: {_said(error)}"


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
    return (
        f"{found.pathspec} has no artifacts: it has not ended by itself, or keeps nothing on self"
    )


def _json_value(value: object) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return {"type": f"{type(value).__module__}.{type(value).__qualname__}", "repr": repr(value)}
    return value


def _without_flow(tasks: dict[str, Any]) -> dict[str, Any]:
    """The same by `RUN/STEP/TASK`."""
    return {pathspec.partition("/")[2]: values for pathspec, values in tasks.items()}
