"""Waiting for what nobody announces."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = 180  # nothing here takes a tenth of it on an idle machine


async def until(condition: Callable[..., object]) -> None:
    """Wait for something to become true, such as what another process does.

    Raises:
        TimeoutError: It does not come about.
    """
    async with asyncio.timeout(_SECONDS):
        while not condition():  # noqa: ASYNC110 - no event crosses processes
            await asyncio.sleep(0.005)
