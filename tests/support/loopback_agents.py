"""Finds the processes that `Loopback` executors of this process have started."""

from __future__ import annotations

import psutil


def loopback_agents() -> list[psutil.Process]:
    """The agents that live, each with the workers of one node."""
    return [
        child
        for child in psutil.Process().children()
        if any("loopback_agent" in word for word in child.cmdline())
    ]
