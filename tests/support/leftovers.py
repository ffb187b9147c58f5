"""What an engine may have left behind in this process."""

from __future__ import annotations

import threading


def engine_threads():
    """The names of the threads of engines. The one that reads journals belongs to the process."""
    names = [thread.name for thread in threading.enumerate()]
    return [
        name
        for name in names
        if name.startswith("asyncflow") and not name.startswith("asyncflow-read")
    ]
