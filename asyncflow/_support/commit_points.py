"""Names for the moments at which durable state changes.

Wherever something on disk is about to change, or has just changed, in a way that a crash would
leave behind, the code says so:

    reached("journal.append")

That does nothing. A test sets `watcher`, and can end the process right there;
`tests/durability/chaos` finds the names in the code and does so at each of them. A new change of
durable state gets a new name, a literal text, and a scenario in
`tests/durability/chaos/scenarios.py` that passes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

watcher: Callable[[str], None] | None = None
"""Called with the name of each point that this process reaches, in the thread that reaches it."""


def reached(name: str) -> None:
    """A commit point: durable state is about to change, or has just changed."""
    if watcher is not None:
        watcher(name)
