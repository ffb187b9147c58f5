"""What an application holds: the engine, run handles, subscriptions.

This is the only package that joins all parts: it creates runs, admits them, and delivers events to
subscribers. The command line is above it. Nothing below imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncflow.engine.engine import Engine
    from asyncflow.engine.own_engine import resume, run, run_sync

__all__ = ["Engine", "resume", "run", "run_sync"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from asyncflow.engine import own_engine

    return getattr(own_engine, name)
