"""The small server of `asyncflow card server`: a page with the cards of a run, on this machine.

It listens at a loopback address only, and answers only requests that name it so. A page asks what
there is, and is answered once that has changed. Each card is a document of its own in a frame that
can reach nothing of the page; the page passes it on what is new.
"""

from __future__ import annotations

import json
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from blake3 import blake3

from asyncflow.card_content.html import (
    HTML_POLICY,
    card_page,
    html_for_frame,
    is_only_html,
    static_text,
)
from asyncflow.client.cards import Card, cards_of_step, get_cards
from asyncflow.client.objects import Flow, Run
from asyncflow.errors import AsyncflowError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_HOST: Final = "127.0.0.1"
_NAMES: Final = frozenset({"127.0.0.1", "localhost"})
_ANSWER_SECONDS: Final = 20.0  # then a page asks again
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "frame-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
)
_SANDBOX: Final = "sandbox allow-scripts allow-popups"
"""What a card may do, even if somebody opens its address."""


class CardServer:
    """Serves the cards of a run, or of a flow's latest run. Use it in a `with` block."""

    def __init__(self, shown: Run | Flow, port: int, *, seconds: float, most: int) -> None:
        """Listen.

        Args:
            shown: The run, or the flow.
            port: The port; 0 for any that is free.
            seconds: How often to look for what is new.
            most: The most cards that are shown.

        Raises:
            OSError: The port is taken.
        """
        self._shown, self._seconds, self._most = shown, seconds, most
        owner = self

        class Handler(_Handler):
            server_of_cards = owner

        self._http = ThreadingHTTPServer((_HOST, port), Handler)
        self._http.daemon_threads = True
        self._cache: tuple[float, dict[str, Any]] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.server_close()

    @property
    def port(self) -> int:
        """The port at which it listens."""
        return int(self._http.server_address[1])

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://{_HOST}:{self.port}/"

    def serve_forever(self) -> None:
        """Answer requests until `stop` is called, or Ctrl-C comes."""
        self._http.serve_forever(poll_interval=0.1)

    def stop(self) -> None:
        """Have `serve_forever` return."""
        self._http.shutdown()

    # --- what is shown ------------------------------------------------------------------------

    def _run(self) -> Run | None:
        return self._shown.latest_run if isinstance(self._shown, Flow) else self._shown

    def _cards(self, run: Run) -> Iterator[Card]:
        """The cards of the run, those of the newest tasks first."""
        graph = run.graph
        for step in reversed(list(run)):
            if graph[step.id].options.get("card"):
                for task in step:
                    if cards_of_step(task):
                        yield from get_cards(task)

    def found(self) -> dict[str, Any]:
        """The run and its cards, each with a version that changes when the card has changed."""
        with self._lock:
            if self._cache is not None and time.monotonic() - self._cache[0] < self._seconds:
                return self._cache[1]
            found = self._find()
            self._cache = time.monotonic(), found
            return found

    def _find(self) -> dict[str, Any]:
        run = self._run()
        if run is None:
            return {"run": None, "status": "", "cards": []}
        cards = [
            {
                "place": f"{card.pathspec}/{card.number}",
                "label": f"{card.pathspec.partition('/')[2].partition('/')[2]} · {card.name}",
                "type": card.type,
                "version": card.version,
            }
            for card in islice(self._cards(run), self._most)
        ]
        return {"run": run.pathspec, "status": str(run.status), "cards": cards}

    def wait_for_change(self, seen: str) -> dict[str, Any]:
        """What there is, once that is not what the page has seen, or after a while."""
        until = time.monotonic() + _ANSWER_SECONDS
        while True:
            found = self.found()
            version = blake3(json.dumps(found, sort_keys=True).encode()).hexdigest()
            if version != seen or time.monotonic() > until:
                return {**found, "version": version}
            time.sleep(self._seconds)

    def card(self, place: str) -> Card | None:
        """A card of the run; None if there is no such card."""
        run = self._run()
        *task, number = place.split("/")
        if run is None or task[:2] != run.pathspec.split("/") or len(task) != 4:  # noqa: PLR2004 - Flow/run/step/task
            return None
        found = get_cards(run[task[2]][task[3]])
        return found[int(number)] if number.isdecimal() and int(number) < len(found) else None


class _Handler(BaseHTTPRequestHandler):
    server_of_cards: CardServer
    protocol_version = "HTTP/1.1"
    server_version = "asyncflow"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        host = (self.headers.get("Host") or "").partition(":")[0]
        if host not in _NAMES:  # another site's name that leads here
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"this page is at 127.0.0.1")
            return
        try:
            self._route()
        except (AsyncflowError, OSError, ValueError) as error:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", str(error).encode())

    def _route(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        served = self.server_of_cards
        match parts.path:
            case "/":
                page = static_text("card_server.html").encode()
                self._answer(HTTPStatus.OK, "text/html", page, _PAGE_POLICY)
            case "/card_server.js" | "/card_server.css":
                kind = "text/javascript" if parts.path.endswith(".js") else "text/css"
                self._answer(HTTPStatus.OK, kind, static_text(parts.path[1:]).encode())
            case "/cards":
                found = served.wait_for_change(query.get("seen", [""])[0])
                self._answer_json(found)
            case path if path.startswith(("/card/", "/drawing/")):
                kind, _, place = path[1:].partition("/")
                self._answer_card(kind, served.card(place))
            case _:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such page")

    def _answer_card(self, kind: str, card: Card | None) -> None:
        if card is None:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such card")
            return
        drawing = card.drawing()
        if kind == "drawing":
            self._answer_json(drawing)
            return
        is_html = is_only_html(drawing)
        policy = f"{_SANDBOX}; {HTML_POLICY}" if is_html else _SANDBOX
        page = html_for_frame(drawing["html"]) if is_html else card_page(drawing)
        self._answer(HTTPStatus.OK, "text/html", page.encode(), policy)

    def _answer_json(self, data: Any) -> None:
        text = json.dumps(data, ensure_ascii=False)
        self._answer(HTTPStatus.OK, "application/json", text.encode("utf-8", "replace"))

    def _answer(
        self, status: HTTPStatus, kind: str, data: bytes, policy: str = "default-src 'none'"
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature is the base class's
        """Say nothing of a request."""
