"""What all views have in common: their pathspec, their tags, and whether they are visible."""

# ruff: noqa: SLF001 - the views are one family

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from asyncflow._support.locations import store_location
from asyncflow.client.namespaces import get_namespace, without_namespace
from asyncflow.errors import AsyncflowError, JournalError, NamespaceMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncflow.client.run_files import FlowPlace, RunRecord


class View:
    """What flow, run, step, task and artifact have in common."""

    __slots__ = ("__weakref__",)

    _PARTS: ClassVar[int]
    _COLUMNS: ClassVar[tuple[str, ...]] = ()
    """The columns of a table of the objects in it, in a notebook."""

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
    def _place(self) -> FlowPlace:
        """Its flow's part of the store."""
        raise NotImplementedError

    @property
    def tags(self) -> frozenset[str]:
        """The tags of its run as they are now: `user_tags` and `system_tags`; a flow has none."""
        return self.user_tags | self.system_tags

    @property
    def user_tags(self) -> frozenset[str]:
        """The tags that its run was given at its start or later; a flow has none."""
        return frozenset()

    @property
    def system_tags(self) -> frozenset[str]:
        """The tags that every run has: `user:`, `runtime:` and the versions; a flow has none."""
        return frozenset()

    def is_in_namespace(self) -> bool:
        """Whether it is found in the namespace, see `asyncflow.namespace`."""
        raise NotImplementedError

    @property
    def store(self) -> Path | str:
        """The folder of its store, or the URL of an object store."""
        return store_location(self._place.store.location)

    def _describe(self) -> str:
        """A description in a few words."""
        raise NotImplementedError

    def _cells(self) -> tuple[str, ...]:
        """What a table says of it, in the columns of its parent."""
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


class RunView(View):
    """What a run, its steps, tasks and artifacts have in common: the record of the run."""

    __slots__ = ()

    @property
    def _record(self) -> RunRecord:
        raise NotImplementedError

    @property
    def _place(self) -> FlowPlace:
        return self._record.place

    @property
    def user_tags(self) -> frozenset[str]:
        """The tags that its run was given at its start or later."""
        return self._record.user_tags()

    @property
    def system_tags(self) -> frozenset[str]:
        """The tags that every run has: `user:`, `runtime:` and the versions. They never change."""
        return self._record.system_tags()

    def is_in_namespace(self) -> bool:
        """Whether it is found in the namespace, see `asyncflow.namespace`."""
        return is_visible(self._record)


def reopen(cls: Any, pathspec: str, store: Path | str, **named: Any) -> Any:
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
        raise not_found_out(pathspec, error) from error


def not_found_out(pathspec: str, error: JournalError) -> JournalError:
    """An error of the journal that also names the requested pathspec."""
    return JournalError(f"{pathspec} cannot be looked up: {error}")
