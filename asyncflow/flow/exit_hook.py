"""`@exit_hook`: functions that are called when a run of the flow has ended.

def tell(run):
    print(run.pathspec, "has succeeded")

@exit_hook(on_success=[tell])
class Nightly(FlowSpec):
    ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow.flow.decorator_arguments import mistake, plain_data
from asyncflow.flow.flow_decorators import note_on_flow, own_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asyncflow.flow.flow_decorators import FlowClass

NAME: Final = "exit_hook"


def exit_hook(
    on_success: Iterable[Callable[..., object]] = (),
    on_error: Iterable[Callable[..., object]] = (),
    options: Mapping[str, Any] | None = None,
) -> Callable[[FlowClass], FlowClass]:
    """Call functions when a run of the flow has ended, before whoever waits for the run goes on.

    Each is called in a process of its own, one after another, with the finished `Run`, or without
    arguments if it takes none. What it prints goes to the program's stderr. If one fails, that is
    logged, the others are called, and the run's result stays as it is. A run that was cancelled or
    interrupted has no exit hooks.

    Args:
        on_success: Called after a run that has succeeded.
        on_error: Called after a run that has failed.
        options: Recorded, without effect.

    Raises:
        FlowError: Something that is to be called is no function.
    """
    hooks = {"on_success": tuple(on_success or ()), "on_error": tuple(on_error or ())}
    for each in (*hooks["on_success"], *hooks["on_error"]):
        if not callable(each):
            raise mistake(f"@exit_hook takes lists of functions, not {each!r}")
    names = {
        when: [getattr(each, "__qualname__", repr(each)) for each in functions]
        for when, functions in hooks.items()
    }

    def decorate(cls: FlowClass) -> FlowClass:
        record: Callable[[FlowClass], FlowClass] = note_on_flow(
            NAME, {**names, "options": plain_data(dict(options or {}))}
        )
        record(cls)
        own_options(cls, NAME).hooks = hooks
        return cls

    return decorate
