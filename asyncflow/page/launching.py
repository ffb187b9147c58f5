"""Starts and resumes runs for the page: in an engine of the application, or by the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from asyncflow.page.answers import AskedWrongly

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncflow.client.run_files import RunRecord
    from asyncflow.engine.engine import Engine
    from asyncflow.flow.spec import FlowSpec


class Launcher(Protocol):
    """What the page needs to start runs."""

    def flows(self) -> list[str] | None:
        """The flows that can be started; None for all whose file is known."""

    async def resume(self, origin: RunRecord, step: str | None) -> dict[str, Any]:
        """Resume a run; return the new one as `run`."""

    async def run(
        self, flow: str, parameters: Mapping[str, str], tags: Sequence[str]
    ) -> dict[str, Any]:
        """Start a run; return it as `run`."""


class EngineLauncher:
    """Starts runs of some flows in the engine of the application that has the page."""

    def __init__(self, engine: Engine, flows: Iterable[type[FlowSpec]]) -> None:
        """Use an engine, which may be opened later."""
        self._engine = engine
        self._flows = {flow.__name__: flow for flow in flows}

    def flows(self) -> list[str] | None:
        """The flows that can be started."""
        return sorted(self._flows)

    def _flow(self, name: str) -> type[FlowSpec]:
        if name not in self._flows:
            raise AskedWrongly(409, f"this page cannot start runs of {name}")
        return self._flows[name]

    async def resume(self, origin: RunRecord, step: str | None) -> dict[str, Any]:
        """Resume a run."""
        flow = self._flow(origin.place.flow)
        handle = await self._engine.start_resumed(flow, origin=origin.run_id, step=step)
        return {"run": handle.pathspec}

    async def run(
        self, flow: str, parameters: Mapping[str, str], tags: Sequence[str]
    ) -> dict[str, Any]:
        """Start a run."""
        handle = await self._engine.start(self._flow(flow), tags=tags, **parameters)
        return {"run": handle.pathspec}
