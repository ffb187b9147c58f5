"""Data and machine-learning workflows inside an asyncio program.

A flow is a class that extends `FlowSpec`; its steps are methods under `@step`, and what they keep
on `self` are its artifacts. `run` and `Engine` run it on warm worker processes; `Flow`, `Run`,
`Step`, `Task` and `Artifact` look back at what was run, from any process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.version import VERSION
from asyncflow.flow.current import current
from asyncflow.flow.decorators import (
    card,
    catch,
    concurrency,
    environment,
    isolate,
    limit,
    resources,
    retry,
    step,
    timeout,
)
from asyncflow.flow.include_file import IncludeFile
from asyncflow.flow.parameters import JSONType, Parameter
from asyncflow.flow.shared import shared
from asyncflow.flow.spec import FlowSpec, set_launcher

if TYPE_CHECKING:
    from asyncflow import errors, events
    from asyncflow.client import Artifact, Flow, Run, Step, Task
    from asyncflow.engine.engine import Engine, run, run_sync
    from asyncflow.engine.run_handle import RunHandle

__version__ = VERSION

__all__ = [
    "Artifact",
    "Engine",
    "Flow",
    "FlowSpec",
    "IncludeFile",
    "JSONType",
    "Parameter",
    "Run",
    "RunHandle",
    "Step",
    "Task",
    "card",
    "catch",
    "concurrency",
    "current",
    "environment",
    "errors",
    "events",
    "isolate",
    "limit",
    "resources",
    "retry",
    "run",
    "run_sync",
    "shared",
    "step",
    "timeout",
]

# What a flow file needs is imported above. The rest is imported when it is first used: a worker
# needs no engine, and a program that only looks back needs no event loop.
_LATER: Final = {
    "Artifact": "asyncflow.client",
    "Engine": "asyncflow.engine",
    "Flow": "asyncflow.client",
    "Run": "asyncflow.client",
    "RunHandle": "asyncflow.engine.run_handle",
    "Step": "asyncflow.client",
    "Task": "asyncflow.client",
    "errors": "",
    "events": "",
    "run": "asyncflow.engine",
    "run_sync": "asyncflow.engine",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    import importlib

    module = importlib.import_module(_LATER[name] or f"{__name__}.{name}")
    value = getattr(module, name) if _LATER[name] else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _launch(flow: type[FlowSpec]) -> None:
    from asyncflow import cli
    from asyncflow.flow import loader

    if loader.is_program():
        cli.launch(flow)


set_launcher(_launch)
