"""An executor without workers, for a run that only takes over what another one has done."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

from asyncflow.errors import PoolError
from asyncflow.workers.interface import AlikeWorkers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from asyncflow.workers.interface import Kind, WorkerLink, WorkerListener


class NoWorkers(AlikeWorkers):
    """No task is ever begun."""

    size = 0
    workers: tuple[WorkerLink, ...] = ()

    def __init__(
        self, listener: WorkerListener, *, size: int, scratch: Path, store: str = ""
    ) -> None:
        """Need none of it."""

    @property
    def environment(self) -> Mapping[str, str]:
        """That of this process."""
        return os.environ

    async def start(self) -> None:
        """Do nothing."""

    def start_worker(self, kind: Kind = None) -> WorkerLink:
        """Refuse, whatever the kind.

        Raises:
            PoolError: Always.
        """
        del kind
        message = "no task is run here"
        raise PoolError(message)

    def suspended(self) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    async def close(self) -> None:
        """Do nothing."""
