"""Waiting for what nobody announces."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_SECONDS = 180  # nothing here takes a tenth of it on an idle machine


async def until(condition: Callable[..., object]) -> None:
    """Wait for something to become true, such as what another process does.

    Raises:
        TimeoutError: It does not come about.
    """
    async with asyncio.timeout(_SECONDS):
        while not condition():  # noqa: ASYNC110 - no event crosses processes
            await asyncio.sleep(0.005)


def still_running(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that have not ended after so many seconds; soon empty, if all have.

    A zombie has ended. Who adopts the processes of a killed agent need not reap them: `ray start`
    does not before its own end.
    """
    until, left = time.monotonic() + seconds, list(processes)
    while left := [each for each in left if not _has_ended(each)]:
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    return left


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
