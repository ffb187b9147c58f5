"""Facts about an artifact alone; only its value is read from the store."""

# ruff: noqa: SLF001 - the views are one family, and this one asks its task

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncflow.client.task_facts import TaskFacts
from asyncflow.client.views import RunView
from asyncflow.client.words import how_large

if TYPE_CHECKING:
    from datetime import datetime

    from asyncflow.client.run_files import RunRecord
    from asyncflow.values import ArtifactRef


class ArtifactFacts(RunView):
    """An artifact's type, size, hash and value, and when it came to be."""

    __slots__ = ("_name", "_ref", "_task")
    _name: str
    _ref: ArtifactRef
    _task: TaskFacts

    @property
    def path_components(self) -> tuple[str, ...]:
        """The parts of the pathspec."""
        return *self._task.path_components, self._name

    @property
    def _record(self) -> RunRecord:
        return self._task._record

    @property
    def origin_pathspec(self) -> str | None:
        """For an artifact of a task that was taken over: that of the task that did the work."""
        origin = self._task.origin_pathspec
        return None if origin is None else f"{origin}/{self._name}"

    @property
    def data(self) -> Any:
        """The value, read and checked anew on each access.

        Raises:
            ArtifactMissingError: The file that holds it is gone.
            ArtifactCorruptError: Its bytes are not those that were written.
            ArtifactError: It cannot be unpickled here; the cause says why.
        """
        return self._place.artifacts.load(self._ref, self.pathspec).value

    @property
    def type_name(self) -> str:
        """The value's type as text, such as `list` or `numpy.ndarray`."""
        return self._ref.type_name

    @property
    def size(self) -> int:
        """Length of the stored value in bytes."""
        return self._ref.size

    @property
    def sha(self) -> str:
        """A hash of the stored value, in hex: equal for equal values, wherever they are stored."""
        return self._place.artifacts.sha(self._ref)

    @property
    def created_at(self) -> datetime:
        """When its task ended, UTC. A task that only passes a value on has it too."""
        return self._task.finished_at or self._task.created_at

    @property
    def finished_at(self) -> datetime:
        """The same as `created_at`."""
        return self.created_at

    def _cells(self) -> tuple[str, ...]:
        return self.id, self.type_name, how_large(self.size)

    def _repr_html_(self) -> str:
        from asyncflow.client import notebook

        return notebook.show_value(self)

    def _describe(self) -> str:
        return f"{self.type_name}, {how_large(self.size)}"
