"""The addresses below the page: reads a request, has a thread find the answer, and sends it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import anyio
from starlette.responses import StreamingResponse
from starlette.routing import Route

from asyncflow._support.version import VERSION
from asyncflow.client.code import code_of
from asyncflow.client.resume_hint import resume_command
from asyncflow.errors import AsyncflowError
from asyncflow.events.records import KNOWN
from asyncflow.page import requests
from asyncflow.page.actions import cancel, change_tags
from asyncflow.page.answers import AskedWrongly, Json, cut, error_answer, fitting, to_bytes
from asyncflow.page.event_list import EventChoice, codes_of, event_list
from asyncflow.page.flow_pages import Durations, form_of
from asyncflow.page.log_lines import LogChoice, log_lines
from asyncflow.page.raw_artifact import RawArtifact
from asyncflow.page.run_comparison import compare
from asyncflow.page.run_news import Wish
from asyncflow.page.run_overview import overview
from asyncflow.page.run_rows import RunRows
from asyncflow.page.shared_answers import SharedAnswers
from asyncflow.page.task_cards import card_data, card_document, card_of, card_picture, cards_of
from asyncflow.page.task_detail import artifact_detail, task_detail
from asyncflow.page.task_list import TaskChoice, task_list
from asyncflow.page.timeline import TimelineChoice, timeline
from asyncflow.page.watching import MOST_WATCHERS, Watches
from asyncflow.scheduling.resume_preview import plan_data, preview_recorded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from asyncflow.client.cards import Card
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
        self._durations = Durations(opened)
        self._shared = SharedAnswers()
        self._watches = Watches(opened, self._rows, self._read_live)
        self._threads: dict[str, anyio.CapacityLimiter] = {}

    def all(self) -> list[Route]:
        """Every address."""
        run = "/api/runs/{flow}/{run}"
        task = "{step}/{task}"
        return [
            Route("/api/info", self._told(self._info)),
            Route("/api/runs", self._told(self._list)),
            Route(run, self._of_run(self._overview)),
            Route(f"{run}/timeline", self._of_run(_timeline)),
            Route(f"{run}/tasks", self._of_run(_tasks)),
            Route(f"{run}/tasks/{task}", self._of_run(_task)),
            Route(f"{run}/artifact/{task}/{{name}}", self._artifact),
            Route(f"{run}/cards/{task}", self._of_run(_cards)),
            Route(f"{run}/cards/{task}/{{card}}", self._answered(self._card)),
            Route(
                f"{run}/cards/{task}/{{card}}/pictures/{{number:int}}",
                self._answered(self._picture),
            ),
            Route(f"{run}/log", self._of_run(_log)),
            Route(f"{run}/events", self._of_run(_events)),
            Route(f"{run}/code", self._of_run(_code)),
            Route("/api/flows/{flow}/durations", self._told(self._durations_of)),
            Route("/api/flows/{flow}/form", self._told(self._form)),
            Route("/api/diff", self._told(self._diff)),
            Route("/api/plan", self._told(self._recorded_plan)),
            Route("/api/plan", self._done(self._plan), methods=["POST"]),
            Route(f"{run}/cancel", self._done(self._on_run(cancel)), methods=["POST"]),
            Route(f"{run}/tags", self._done(self._on_run(change_tags)), methods=["POST"]),
            Route(f"{run}/resume", self._done(self._resume), methods=["POST"]),
            Route("/api/flows/{flow}/run", self._done(self._run), methods=["POST"]),
            Route("/api/watch", _explaining(self._watch)),
        ]

    # --- how an answer comes about ---

    async def _read(self, find: Callable[[], Any]) -> Any:
        return await self._in_thread("questions", find)

    async def _read_live(self, find: Callable[[], Any]) -> Any:
        """The same for what is told live: no search may hold it up."""
        return await self._in_thread("live", find)

    async def _in_thread(self, use: str, find: Callable[[], Any]) -> Any:
        if use not in self._threads:  # an event loop is needed to make one
            self._threads[use] = anyio.CapacityLimiter(_READERS)
        limiter = self._threads[use]
        return await anyio.to_thread.run_sync(find, limiter=limiter, abandon_on_cancel=True)

    def _told(self, find: Callable[[Request], Any]) -> Callable[[Request], Awaitable[Response]]:
        """What `find` returns, in a thread, as JSON."""

        async def answer(request: Request) -> Response:
            return Json(await self._read(lambda: self._found(find, request)))

        return _explaining(answer)

    def _found(self, find: Callable[[Request], Any], request: Request) -> Any:
        """What `find` returns, unless a run is removed while it is read: then that is the answer.

        Raises:
            NotFoundError: A run that the address names is gone.
        """
        try:
            return find(request)
        except (AsyncflowError, OSError):
            for flow, run_id in requests.runs_in(request):
                self._opened.record(flow, run_id)
            raise

    def _of_run(
        self, find: Callable[[RunRecord, Request], Any]
    ) -> Callable[[Request], Awaitable[Response]]:
        """What `find` tells of the run that the address names."""
        return self._told(lambda request: find(self._record(request), request))

    def _done(
        self, act: Callable[[Request, dict[str, Any]], Awaitable[Any]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """What an action answers."""

        async def answer(request: Request) -> Response:
            if self._options.read_only:
                raise AskedWrongly(403, "this page is read-only: nothing can be changed here")
            try:
                return Json(await act(request, await requests.body_of(request)))
            finally:
                self._shared.forget()

        return _explaining(answer)

    def _on_run(
        self, act: Callable[[RunRecord, dict[str, Any]], Any]
    ) -> Callable[[Request, dict[str, Any]], Awaitable[Any]]:
        """An action on the run that the address names, in a thread."""

        async def answer(request: Request, body: dict[str, Any]) -> Any:
            return await self._read(lambda: act(self._record(request), body))

        return answer

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

    def _overview(self, record: RunRecord, request: Request) -> Any:
        all_times = bool(requests.number_in(request, "times", 0, most=1))

        def resumed() -> list[str]:
            return self._opened.resumed.of(record.place, record.run_id)

        def make() -> dict[str, Any]:
            return overview(record, resumed, all_times=all_times)

        if not record.is_live():
            made = make()
            if made["problem"] is not None:  # it may have been removed meanwhile
                self._opened.record(record.place.flow, record.run_id)
            return made
        # All pages that watch a run ask again and again.
        return self._shared.get(record.pathspec, lambda: to_bytes(make()))

    def _list(self, request: Request) -> dict[str, Any]:
        return self._rows.listed(requests.choice_in(request))

    async def _artifact(self, request: Request) -> Response:
        named = request.path_params
        where = named["step"], named["task"], named["name"]

        async def answer(_: Request) -> Response:
            record = await self._read(lambda: self._record(request))
            if not request.query_params.get("raw"):
                return Json(await self._read(lambda: artifact_detail(record, *where)))
            show = bool(request.query_params.get("show"))
            found: RawArtifact = await self._read(lambda: RawArtifact.find(record, *where))
            return await found.response(self._read, show=show)

        return await _explaining(answer)(request)

    def _card(self, request: Request) -> Response:
        card = self._card_of(request)
        if request.query_params.get("html"):
            return card_document(card)
        named = request.path_params
        place = (named[name] for name in ("flow", "run", "step", "task", "card"))
        flow, run, *rest = (quote(each, safe="") for each in place)
        return Json(card_data(card, "/".join(["api/runs", flow, run, "cards", *rest])))

    def _picture(self, request: Request) -> Response:
        return card_picture(self._card_of(request), request.path_params["number"])

    def _card_of(self, request: Request) -> Card:
        named = request.path_params
        return card_of(self._record(request), named["step"], named["task"], named["card"])

    def _answered(
        self, find: Callable[[Request], Response]
    ) -> Callable[[Request], Awaitable[Response]]:
        """The answer that `find` makes, in a thread."""

        async def answer(request: Request) -> Response:
            found: Response = await self._read(lambda: find(request))
            return found

        return _explaining(answer)

    def _durations_of(self, request: Request) -> dict[str, Any]:
        limit = requests.number_in(request, "limit", 50, least=1, most=200)
        return self._durations.of(request.path_params["flow"], limit)

    def _form(self, request: Request) -> dict[str, Any]:
        flow, launcher = request.path_params["flow"], self._options.launcher
        return form_of(self._opened, flow, None if launcher is None else launcher.known(flow))

    def _diff(self, request: Request) -> dict[str, Any]:
        one, two = (requests.run_named(requests.text_in(request, name)) for name in ("a", "b"))
        return compare(self._opened.record(*one), self._opened.record(*two))

    def _recorded_plan(self, request: Request) -> dict[str, Any]:
        record = self._opened.record(*requests.run_named(requests.text_in(request, "run")))
        step = requests.text_in(request, "step")
        return _planned(record, step, plan_data(preview_recorded(record.stored, step)))

    # --- live ---

    async def _watch(self, request: Request) -> Response:
        named = requests.text_in(request, "run")
        since = requests.number_in(request, "since", 0)
        last = request.headers.get("last-event-id", "")
        if last:
            if not (last.isascii() and last.isdecimal() and len(last) < 19):  # noqa: PLR2004 - 63 bits
                raise AskedWrongly(400, f"Last-Event-ID is to be a number, not {last[:40]!r}")
            since = int(last)
        if self._watches.are_many():
            message = f"{MOST_WATCHERS} pages watch already: close some of them"
            raise AskedWrongly(503, message)
        if named is None:
            flow = requests.text_in(request, "flow")
            if flow is not None:  # one that is not there is told now: a stream has no status
                await self._read(lambda: self._opened.place(flow))
            stream = self._watches.counted(self._watches.list().follow(since, flow))
        else:
            where = requests.run_named(named)
            record = await self._read(lambda: self._opened.record(*where))
            stream = self._watches.counted(self._watches.run(record).follow(since, _wish(request)))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    # --- acting ---

    async def _resume(self, request: Request, body: dict[str, Any]) -> Any:
        record = await self._read(lambda: self._record(request))
        return await self._launcher().resume(record, requests.text_of(body, "step") or None)

    async def _plan(self, _: Request, body: dict[str, Any]) -> Any:
        step = requests.text_of(body, "step") or None
        where = requests.run_named(body.get("run"))
        record = await self._read(lambda: self._opened.record(*where))
        return _planned(record, step, await self._launcher().plan(record, step))

    async def _run(self, request: Request, body: dict[str, Any]) -> Any:
        given = body.get("parameters") or {}
        if not isinstance(given, dict) or not all(isinstance(each, str) for each in given.values()):
            raise AskedWrongly(400, "parameters are to be an object of texts")
        tags = requests.texts_of(body, "tags")
        return await self._launcher().run(request.path_params["flow"], given, tags)

    def _launcher(self) -> Launcher:
        if self._options.launcher is None:
            raise AskedWrongly(403, "this page cannot start runs")
        return self._options.launcher


# --- what is told of a run ----------------------------------------------------------------------


def _planned(record: RunRecord, step: str | None, steps: list[dict[str, Any]]) -> dict[str, Any]:
    command = resume_command(record.stored, step or "")
    kept, whole = fitting(steps)
    return {"run": record.pathspec, "command": command, "steps": kept, "cut": not whole}


def _code(record: RunRecord, _: Request) -> Any:
    found = code_of(record)
    if found is None:
        return None
    files = {cut(name, 500): cut(text, 100_000) for name, text in found.files.items()}
    kept, whole = fitting(files.items())
    return {
        "script": found.script_name,
        "files": dict(kept),
        "left_out": [cut(name, 500) for name in found.left_out[:50]],
        "cut": not whole or any(len(text) > 100_000 for text in found.files.values()),  # noqa: PLR2004 - what one file may have
    }


def _wish(request: Request) -> Wish:
    """What a browser that watches a run wants to be told."""
    counts = requests.one_of(request, "steps", ("0", "1")) == "1"
    codes = codes_of(requests.texts_in(request, "type"))
    step, task = (requests.text_in(request, name) for name in ("step", "task"))
    return Wish(codes if codes or counts else KNOWN, step, task, counts)


def _timeline(record: RunRecord, request: Request) -> Any:
    begin, end = (requests.number_or_none(request, name) for name in ("from", "to"))
    choice = TimelineChoice(
        begin,
        end,
        requests.number_in(request, "px", 800, least=50, most=2000),
        requests.texts_in(request, "step"),
        last_only=requests.one_of(request, "attempts", ("all", "last")) == "last",
        cut_idle=requests.one_of(request, "idle", ("keep", "cut")) == "cut",
    )
    now = (time.time_ns() // 1000 - record.summary().started) // 1000
    return timeline(record, choice, now)


def _tasks(record: RunRecord, request: Request) -> Any:
    choice = TaskChoice(
        requests.text_in(request, "step"),
        requests.statuses_in(request, "state"),
        requests.text_in(request, "find") or "",
        requests.one_of(request, "order", ("state", "id", "seconds")),
        requests.text_in(request, "after") or "",
    )
    return task_list(record, choice)


def _task(record: RunRecord, request: Request) -> Any:
    named = request.path_params
    return task_detail(record, named["step"], named["task"])


def _cards(record: RunRecord, request: Request) -> Any:
    named = request.path_params
    return {"cards": cards_of(record, named["step"], named["task"])}


def _log(record: RunRecord, request: Request) -> Any:
    stream = requests.one_of(request, "stream", ("", "stdout", "stderr"))
    choice = LogChoice(
        step=requests.text_in(request, "step"),
        task=requests.number_or_none(request, "task"),
        attempt=requests.number_or_none(request, "attempt"),
        stream=stream or None,
        find=requests.text_in(request, "find") or "",
        after=requests.number_in(request, "after", 0),
        limit=requests.number_in(request, "limit", 500, least=1, most=1000),
        tail=requests.one_of(request, "tail", ("0", "1")) == "1",
    )
    return log_lines(record, choice)


def _events(record: RunRecord, request: Request) -> Any:
    choice = EventChoice(
        requests.texts_in(request, "type"),
        requests.text_in(request, "step"),
        requests.text_in(request, "task"),
        requests.number_in(request, "after", 0),
        requests.number_in(request, "limit", 200, least=1, most=500),
    )
    return event_list(record, choice)


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
