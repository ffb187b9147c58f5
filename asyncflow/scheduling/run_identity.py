"""The facts about a run that are fixed when it starts."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from asyncflow._quick_classes import dataclass
from asyncflow.scheduling.facts_to_events import elapsed
from asyncflow.values import RunOptions
from asyncflow.workers.messages import Opening

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.flow.code_files import Hidden
    from asyncflow.store.interface import StoredRun
    from asyncflow.workers.program_environment import ProgramEnvironment


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """The facts about a run that never change."""

    number: int
    """The engine's own short number for the run."""
    stored: StoredRun
    """Its place in the store."""
    tags: tuple[str, ...]
    started: int
    """Microseconds since 1970."""
    surroundings: ProgramEnvironment
    """The program's environment when it started the run."""
    options: RunOptions = field(default_factory=RunOptions)
    durable: bool = False
    """Whether announced events survive a power cut, and not only a crash."""
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The environment variables that `@environment` gives to steps; no file of the run holds
    them."""
    hidden_code: Hidden | None = field(default_factory=dict)
    """What asterisks in the flow's code stand for; no file of the run holds that."""
    begun: int = field(default_factory=elapsed)
    """The same moment as `started`, by the clock of `elapsed`."""

    @property
    def flow(self) -> str:
        return self.stored.flow

    @property
    def run_id(self) -> str:
        return self.stored.run_id

    @property
    def store(self) -> str:
        """The location of its store, for workers."""
        return self.stored.store.location

    @property
    def pathspec(self) -> str:
        return self.stored.pathspec

    def opening(self) -> Opening:
        """What makes the run known to a worker."""
        where = self.store, self.flow, self.run_id
        how = self.surroundings, self.durable
        hidden = self.hidden_code
        opening = Opening(self.number, *where, *how, variables=self.variables, hidden_code=hidden)
        store = self.stored.store
        return opening._replace(cache=store.cache, node=store.node)

    @property
    def now(self) -> int:
        """Microseconds since 1970, by the wall clock as it was set when the run was started.

        So a run's times never go back, and their differences are durations, even if the clock is
        set meanwhile.
        """
        return self.started + elapsed() - self.begun
