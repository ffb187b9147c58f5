"""Decorators that are about other machines, environments and schedulers than asyncflow has.

They are Metaflow's. The graph records their arguments, and the flow runs here as Metaflow runs it
on one machine without them: with the packages that are installed. When a run starts, one line says
which of them have no effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, overload

from asyncflow.flow.decorator_arguments import plain_data
from asyncflow.flow.flow_decorators import FlowClass, delayed_on_flow, note_on_flow
from asyncflow.flow.step_options import Method, apply, delayed_on_step, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncflow.flow.graph import Graph


class _Recorded:
    """A decorator that is recorded and has no effect here."""

    def __init__(self, name: str, doc: str) -> None:
        self.__name__, self.__doc__ = name, doc

    def __repr__(self) -> str:
        return f"<decorator @{self.__name__}>"


class RemoteStepDecorator(_Recorded):
    """A decorator of steps that is recorded and has no effect here."""

    @overload
    def __call__(self, method: Method, /) -> Method: ...
    @overload
    def __call__(self, /, **arguments: object) -> Callable[[Method], Method]: ...
    def __call__(self, method: Any = None, /, **arguments: object) -> Any:
        """Record the arguments, whatever they are."""
        delayed = delayed_on_step(self, (), arguments)
        if delayed is not None:
            return delayed
        name = self.__name__
        return apply(name, method, record(name, plain_data(arguments)))


class RemoteFlowDecorator(_Recorded):
    """A decorator of flows that is recorded and has no effect here."""

    @overload
    def __call__(self, flow: FlowClass, /) -> FlowClass: ...
    @overload
    def __call__(self, /, **arguments: object) -> Callable[[FlowClass], FlowClass]: ...
    def __call__(self, flow: Any = None, /, **arguments: object) -> Any:
        """Record the arguments, whatever they are."""
        delayed = delayed_on_flow(self, (), arguments)
        if delayed is not None:
            return delayed
        decorate: Callable[[Any], Any] = note_on_flow(self.__name__, plain_data(arguments))
        return decorate if flow is None else decorate(flow)


conda: Final = RemoteStepDecorator("conda", "Name the Conda packages that the step needs.")
pypi: Final = RemoteStepDecorator("pypi", "Name the packages from PyPI that the step needs.")
batch: Final = RemoteStepDecorator("batch", "Ask for AWS Batch.")
kubernetes: Final = RemoteStepDecorator("kubernetes", "Ask for Kubernetes.")
gpu_profile: Final = RemoteStepDecorator("gpu_profile", "Ask for a card of the use of GPUs.")
conda_base: Final = RemoteFlowDecorator("conda_base", "Name the Conda packages of all steps.")
pypi_base: Final = RemoteFlowDecorator("pypi_base", "Name the packages from PyPI of all steps.")
schedule: Final = RemoteFlowDecorator("schedule", "Say when a scheduler is to start the flow.")
trigger: Final = RemoteFlowDecorator("trigger", "Name the events that are to start the flow.")
trigger_on_finish: Final = RemoteFlowDecorator(
    "trigger_on_finish", "Name the flows whose end is to start this one."
)
package_sources: Final = RemoteFlowDecorator(
    "package_sources", "Name more files for the code package of another machine."
)

STEP_DECORATORS: Final = (conda, pypi, batch, kubernetes, gpu_profile)
FLOW_DECORATORS: Final = (
    conda_base,
    pypi_base,
    schedule,
    trigger,
    trigger_on_finish,
    package_sources,
)


def without_effect(graph: Graph) -> str:
    """The decorators in a graph that have no effect, for a line of text; empty if there are none.

    Such as `@conda (start, train), @schedule`.
    """
    found = [
        f"@{each.__name__} ({', '.join(steps)})"
        for each in STEP_DECORATORS
        if (steps := [node.name for node in graph if each.__name__ in node.options])
    ]
    found += [f"@{each.__name__}" for each in FLOW_DECORATORS if each.__name__ in graph.options]
    return ", ".join(found)
