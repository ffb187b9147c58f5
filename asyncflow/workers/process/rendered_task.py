"""The task that a card's own type renders: the client's `Task`, with what the step has set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncflow.flow.bound_task import artifacts_of, task_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncflow.flow.spec import FlowSpec


class RenderedData:
    """The artifacts of a task whose step has just ended, as attributes."""

    def __init__(self, flow: FlowSpec) -> None:
        self._flow = flow

    def _names(self) -> list[str]:
        task = task_of(self._flow)
        return sorted({*artifacts_of(self._flow), *(task.names() if task is not None else ())})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._flow, name)

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __dir__(self) -> list[str]:
        return self._names()

    def __repr__(self) -> str:
        return f"<Data {', '.join(self._names())}>"


class RenderedArtifact:
    """One artifact of such a task."""

    def __init__(self, name: str, task: RenderedTask) -> None:
        self.id, self._task = name, task

    @property
    def pathspec(self) -> str:
        """`Flow/run/step/task/name`."""
        return f"{self._task.pathspec}/{self.id}"

    @property
    def data(self) -> Any:
        """The value."""
        return getattr(self._task.data, self.id)

    def __repr__(self) -> str:
        return f"<Artifact {self.pathspec}>"


class RenderedTask:
    """A task whose step has just ended. What is not here is the client's, as of a running task."""

    def __init__(self, flow: FlowSpec, task: Callable[[], Any], *, is_finished: bool) -> None:
        self.data = RenderedData(flow)
        """What the step has set and inherited, as attributes."""
        self.finished = self.successful = is_finished
        self._find_task = task

    def __getitem__(self, name: str) -> RenderedArtifact:
        if name not in self.data:
            raise KeyError(name)
        return RenderedArtifact(name, self)

    def __contains__(self, name: object) -> bool:
        return name in self.data

    def __iter__(self) -> Iterator[RenderedArtifact]:
        return (RenderedArtifact(name, self) for name in self.data)

    @property
    def artifacts(self) -> Iterator[RenderedArtifact]:
        """Its artifacts."""
        return iter(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._find_task(), name)

    def __repr__(self) -> str:
        return f"<Task {self.pathspec}>"
