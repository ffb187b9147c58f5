"""The process that calls one function of `@exit_hook`; `asyncflow.engine.exit_hooks` starts it."""

from __future__ import annotations

import inspect
import os
import pickle
import sys
import traceback
from typing import TYPE_CHECKING, Any

from asyncflow.client import Run
from asyncflow.flow.flow_decorators import exit_hooks_of
from asyncflow.workers.local.fork_server import die_with_parent
from asyncflow.workers.messages import Opening
from asyncflow.workers.process.run import OpenRun

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> int:
    """Call the function that the order on standard input names; return the exit status."""
    fields, parent, when, index = pickle.loads(sys.stdin.buffer.read())
    die_with_parent(parent)
    sys.stdin.close()
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - to the end of the process
    opening = Opening(*fields)
    os.environ["ASYNCFLOW_STORE"] = opening.store
    view = OpenRun(opening, os.getpid())
    try:
        view.open()
        os.environ["ASYNCFLOW_STORE"] = opening.store  # the program's environment may have another
        _call(exit_hooks_of(view.flow_class)[when][index], view.pathspec, opening.store)
    except Exception:  # noqa: BLE001 - the user's function may raise anything
        traceback.print_exc()
        return 1
    finally:
        view.close()
    return 0


def _call(function: Callable[..., object], pathspec: str, store: str) -> None:
    if _takes_run(function):
        function(Run(pathspec, store=store))
    else:
        function()


def _takes_run(function: Callable[..., Any]) -> bool:
    try:
        return bool(inspect.signature(function).parameters)
    except ValueError:  # built in, and without a signature
        return True


if __name__ == "__main__":
    sys.exit(main())
