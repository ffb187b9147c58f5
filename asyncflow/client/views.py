"""What all views have in common, and how they describe themselves."""

# ruff: noqa: SLF001 - the views are one family

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from asyncflow.client.namespaces import get_namespace, without_namespace
from asyncflow.errors import AsyncflowError, JournalError, NamespaceMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncflow.client.run_files import FlowPlace, RunRecord

_NAMED: Final = 8  # the most names of a long list in an error or a drawing


class View:
    """What flow, run, step, task and artifact have in common."""

    __slots__ = ("__weakref__", "_place")

    _PARTS: ClassVar[int]
    _place: FlowPlace

    @property
    def path_components(self) -> tuple[str, ...]:
        """The parts of the pathspec."""
        raise NotImplementedError

    @property
    def pathspec(self) -> str:
        """`Flow/run/step/task/artifact`, up to this object."""
        return "/".join(self.path_components)

    @property
    def id(self) -> str:
        """Its name within its parent: the last part of the pathspec."""
        return self.path_components[-1]

    @property
    def _run_record(self) -> RunRecord | None:
        """The record of its run; None for a flow."""
        raise NotImplementedError

    @property
    def tags(self) -> frozenset[str]:
        """The tags of its run as they are now: `user_tags` and `system_tags`; a flow has none."""
        return self.user_tags | self.system_tags

    @property
    def user_tags(self) -> frozenset[str]:
        """The tags that its run was given at its start or later."""
        record = self._run_record
        return frozenset() if record is None else record.user_tags()

    @property
    def system_tags(self) -> frozenset[str]:
        """The tags that every run has: `user:`, `runtime:` and the versions. They never change."""
        record = self._run_record
        return frozenset() if record is None else record.system_tags()

    def is_in_namespace(self) -> bool:
        """Whether it is found in the namespace, see `asyncflow.namespace`."""
        return self._run_record is None or is_visible(self._run_record)

    @property
    def store(self) -> Path:
        """The folder of its store."""
        return Path(self._place.store.location)

    def _describe(self) -> str:
        """A description in a few words."""
        raise NotImplementedError

    def __repr__(self) -> str:
        try:
            said = self._describe()
        except (AsyncflowError, OSError) as error:  # a debugger calls this too: never fail
            said = f"cannot be read: {error}"
        return f"{type(self).__name__}({self.pathspec!r}) {said}"

    def _repr_html_(self) -> str:
        from asyncflow.client import notebook

        return notebook.show(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, View):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[object, ...]:
        return type(self), self.store, self.path_components

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen, (type(self), self.pathspec, self.store)


def reopen(cls: Any, pathspec: str, store: Path, **named: Any) -> Any:
    """The view that was pickled, whatever the namespace is now."""
    with without_namespace():
        return cls(pathspec, store=store, **named)


def is_visible(record: RunRecord) -> bool:
    """Whether a run is in the namespace."""
    namespace = get_namespace()
    return namespace is None or record.has_tags([namespace])


def not_visible(pathspec: str) -> NamespaceMismatchError:
    """The error for what exists, but not in the namespace."""
    message = (
        f"{pathspec} is not in the namespace {get_namespace()!r}: call namespace(None) to see "
        "the runs of everybody"
    )
    return NamespaceMismatchError(message)


def parts_of(view: type[View], pathspec: str) -> list[str]:
    """The parts of the pathspec with which a view was requested.

    Raises:
        TypeError: It is not text.
        ValueError: It is not a pathspec of such an object.
    """
    given: object = pathspec
    wanted = "/".join(["Flow", "run", "step", "task", "artifact"][: view._PARTS])
    if not isinstance(given, str):
        of_class = f": write {given.__name__!r}" if isinstance(given, type) else ""
        message = f"{view.__name__} takes text such as {wanted!r}, not {given!r}{of_class}"
        raise TypeError(message)
    parts = pathspec.split("/")
    if len(parts) != view._PARTS or not all(parts):
        message = f"{view.__name__} takes {wanted!r}, not {pathspec!r}"
        raise ValueError(message)
    return parts


@contextmanager
def asking_for(pathspec: str) -> Iterator[None]:
    """Within the block, an error of the journal also names the requested pathspec."""
    try:
        yield
    except JournalError as error:
        message = f"{pathspec} cannot be looked up: {error}"
        raise JournalError(message) from error


def some_of(names: Iterable[str]) -> str:
    """Names, as an error lists them."""
    listed = list(names)
    if len(listed) > _NAMED:
        listed[_NAMED - 1 :] = [f"{len(listed) - _NAMED + 1} more"]
    return ", ".join(listed) or "nothing"


# --- words ------------------------------------------------------------------------------------


def how_many(number: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def how_long(seconds: float) -> str:
    """`8 ms`, `1.5 s`, `2 min 3 s`, `1 h 5 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def how_large(size: float) -> str:
    """`12 bytes`, `1.5 KiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:  # noqa: PLR2004 - the next unit
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
