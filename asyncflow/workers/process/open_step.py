"""What all tasks of one step share in a worker that has their run open, so that none makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow.flow.current import not_awaitable
from asyncflow.flow.spec import FlowSpec
from asyncflow.flow.task_instance import instance_class

if TYPE_CHECKING:
    from asyncflow.workers.process.run import OpenRun


class OpenStep:
    """A step of a run whose flow class is loaded."""

    __slots__ = (
        "context_head",
        "context_tail",
        "has_own_init",
        "instance_class",
        "node",
        "place",
        "variables",
    )

    def __init__(self, run: OpenRun, name: str) -> None:
        """Raises KeyError if the graph has no such step."""
        opening, started = run.order, run.started
        self.node: Final = run.graph.nodes[name]
        self.place: Final = f"{run.pathspec}/{name}/"
        """The pathspec of a task, without its id."""
        self.instance_class: Final[Any] = instance_class(run.flow_class)
        """The class of the tasks' instances."""
        self.has_own_init: Final = self.instance_class.__init__ is not FlowSpec.__init__
        """Whether each task calls an `__init__` of the flow's own."""
        self.variables: Final = opening.variables.get(name)
        """Its environment variables, by `@environment`."""
        self.context_head: Final = (opening.flow, opening.run_id, name)
        """The fields of a `TaskContext` before those of the task."""
        self.context_tail: Final = (
            run.graph,
            run.parameter_names,
            run.parameter,
            not_awaitable,
            started.tags,
            started.origin_run_id,
            None,
            opening.store,
            run.flow_class,
            None,
        )
        """The fields behind them, of a `def` step without cards that is no gang."""

    def __repr__(self) -> str:
        return f"<OpenStep {self.place}>"
