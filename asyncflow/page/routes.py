"""The addresses below the page: reads a request, has a thread find the answer, and sends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio
from starlette.routing import Route

from asyncflow._support.version import VERSION
from asyncflow.page import requests
from asyncflow.page.answers import Json, error_answer
from asyncflow.page.run_overview import overview
from asyncflow.page.run_rows import RunRows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from asyncflow.client.run_files import RunRecord
    from asyncflow.page.launching import Launcher
    from asyncflow.page.opened_runs import OpenedRuns

_READERS: Final = 4
"""Threads that read at a time: more would only take the interpreter from each other."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the page may do."""

    read_only: bool = False
    launcher: Launcher | None = None
    """Starts and resumes runs; None if the page cannot."""


class Routes:
    """The addresses, and what they share: the store, and the threads that read it."""

    def __init__(self, opened: OpenedRuns, options: Options, *, action_token: str) -> None:
        """Read nothing yet."""
        self._opened, self._options = opened, options
        self._action_token = action_token
        self._rows = RunRows(opened)
        self._threads: anyio.CapacityLimiter | None = None

    def all(self) -> list[Route]:
        """Every address."""
        run = "/api/runs/{flow}/{run}"
        return [
            Route("/api/info", self._told(self._info)),
            Route("/api/runs", self._told(self._list)),
            Route(run, self._of_run(overview)),
        ]

    # --- how an answer comes about ---

    async def _read(self, find: Callable[[], Any]) -> Any:
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(_READERS)
        return await anyio.to_thread.run_sync(find, limiter=self._threads, abandon_on_cancel=True)

    def _told(self, find: Callable[[Request], Any]) -> Callable[[Request], Awaitable[Response]]:
        """What `find` returns, in a thread, as JSON."""

        async def answer(request: Request) -> Response:
            return Json(await self._read(lambda: find(request)))

        return _explaining(answer)

    def _of_run(self, find: Callable[[RunRecord], Any]) -> Callable[[Request], Awaitable[Response]]:
        """What `find` tells of the run that the address names."""
        return self._told(lambda request: find(self._record(request)))

    def _record(self, request: Request) -> RunRecord:
        named = request.path_params
        return self._opened.record(named["flow"], named["run"])

    # --- the answers ---

    def _info(self, _: Request) -> dict[str, Any]:
        options, launcher = self._options, self._options.launcher
        actions = [] if options.read_only else ["cancel", "tags"]
        if launcher is not None and not options.read_only:
            actions += ["resume", "run"]
        return {
            "asyncflow": VERSION,
            "store": self._opened.location,
            "read_only": options.read_only,
            "actions": actions,
            "flows": None if launcher is None else launcher.flows(),
            "action_token": None if options.read_only else self._action_token,
        }

    def _list(self, request: Request) -> dict[str, Any]:
        return self._rows.listed(requests.choice_in(request))


def _explaining(
    answer: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """The same, with errors as answers that say what helps."""

    async def answer_or_explain(request: Request) -> Response:
        try:
            return await answer(request)
        except Exception as error:
            refusal = error_answer(error)
            if refusal.status_code >= 500:  # noqa: PLR2004 - nobody has foreseen it: the log has it all
                raise
            return refusal

    return answer_or_explain
