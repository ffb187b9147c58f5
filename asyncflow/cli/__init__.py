"""The `asyncflow` command, and `python FILE run` for a file that ends with `MyFlow()`.

Start-up time is a feature: nothing is imported here, and a command imports what it needs.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from asyncflow.flow.spec import FlowSpec

__all__ = ["launch", "main"]

_RUNNING: Final = frozenset({"run", "resume"})


def main() -> NoReturn:
    """Run the `asyncflow` command with the arguments of this process, and exit."""
    sys.exit(_carry_out(None, ""))


def launch(flow: type[FlowSpec]) -> NoReturn:
    """Run the command line of one flow, for a script that is run as a program, and exit."""
    sys.exit(_carry_out(flow, sys.argv[0]))


def _carry_out(flow: type[FlowSpec] | None, script: str) -> int:
    arguments = sys.argv[1:]
    try:
        _warm_up(arguments)
        from asyncflow.cli.command_table import invoke

        return invoke(arguments, flow=flow, script=script)
    except KeyboardInterrupt:  # before there was anything to stop
        return 128 + signal.SIGINT


def _warm_up(arguments: list[str]) -> None:
    """Fork the process that forks workers, while this process is small and has one thread."""
    _hold_standard_descriptors()
    if _runs(arguments) and "--help" not in arguments:
        from asyncflow.workers.local import fork_server

        fork_server.prefork()
        # until the run begins: a collection would cost 5% of the time and find nothing
        gc.disable()


def _runs(arguments: list[str]) -> bool:
    """Whether a flow is to be run; options may stand before the command."""
    first = arguments[0] if arguments else ""
    return first in _RUNNING or (first.startswith("-") and not _RUNNING.isdisjoint(arguments))


def _hold_standard_descriptors() -> None:
    """Open those of descriptors 0, 1 and 2 that are closed, so that none of our files gets them.

    Writing to standard output stays an error, so that no answer is lost silently.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            how = os.O_RDONLY if descriptor == 1 else os.O_RDWR
            os.open(os.devnull, how)  # takes the lowest free number
