"""The exit statuses of the commands."""

from __future__ import annotations

from typing import Final

SUCCEEDED: Final = 0
FAILED: Final = 1
MISUSED: Final = 2
"""The command was called wrongly, or asks for something that does not exist."""

SIGNALLED: Final = 128
"""Added to the number of the signal that ended a run, as shells do: 130 is Ctrl-C."""

INTERRUPTED: Final = SIGNALLED + 2
"""Ctrl-C, which is signal 2, ended a command that does not run a flow."""
