"""The cards of one task: what its step adds to them is stored, and told while the step runs.

    current.card ── CardCollector ── TaskCards ── the store, and a report to the engine

A step that adds nothing pays for one small object. Else the cards are made in a thread of their
own, because that calls the user's code: whatever it raises is shown on the card, and it has
`timeout` seconds. The store has the documents of the cards and their images
(`asyncflow.card_content`); their refs travel in a manifest, as those of artifacts do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asyncflow._support.commit_points import reached
from asyncflow._support.safe_text import class_name
from asyncflow._support.tracebacks import describe_exception
from asyncflow.card_content.options import (
    BUILT_IN,
    HTML,
    TIMEOUT_SECONDS,
    CardOptions,
    card_options,
)
from asyncflow.events.manifests import pack_manifest
from asyncflow.workers.messages import AttemptKey, CardsChanged
from asyncflow.workers.process.stop_signals import block_stop_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncflow.card_content.card_type import CardType
    from asyncflow.card_content.collector import CardCollector, CardManager
    from asyncflow.card_content.component import Images
    from asyncflow.card_content.document import Document
    from asyncflow.flow.node import Node
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.store.artifacts import ArtifactWriter
    from asyncflow.values import ArtifactRef

Result = TypeVar("Result")

_BURST_SECONDS: Final = 200.0
"""An update costs a second, or more if it is large, and time brings that back: so many seconds are
there at first. A step may refresh quickly for a while, and one that refreshes all day long writes
no more than an update in each second."""
_BYTES_PER_SECOND: Final = 64 << 10
_HTML_BYTES: Final = 32 << 20
_SHORT_HTML_BYTES: Final = 512


class TaskCards:
    """The cards of one attempt of a task."""

    def __init__(
        self,
        node: Node,
        key: AttemptKey,
        flow: FlowSpec,
        writer: ArtifactWriter,
        tell: Callable[[CardsChanged], None] | None = None,
    ) -> None:
        """Have nothing on the cards yet; `tell` reports what is to be seen at once."""
        self._node, self._key, self._flow, self._writer = node, key, flow, writer
        self._tell = tell
        self._collector: CardCollector | None = None
        self._publishing: _Publishing | None = None
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<TaskCards of {self._node.name}: {self._collector or 'untouched'}>"

    # --- what the step sees ---

    @property
    def collector(self) -> CardCollector:
        """`current.card`."""
        if self._collector is None:
            from asyncflow.card_content.collector import CardCollector

            options = [self._with_own_type(each) for each in card_options(self._recorded)]
            self._collector = CardCollector(options, self._published.ask)
        return self._collector

    @property
    def _published(self) -> _Publishing:
        if self._publishing is None:
            self._publishing = _Publishing(self)
        return self._publishing

    @property
    def _recorded(self) -> Any:
        return self._node.options.get("card")

    def _with_own_type(self, options: CardOptions) -> CardOptions:
        if options.type in BUILT_IN:
            return options
        from asyncflow.card_content.card_type import find_type

        try:
            kind = find_type(options.type, type(self._flow))
        except BaseException:  # noqa: BLE001 - the import of a package: shown at the end of the step
            kind = None
        editable = kind is not None and kind.ALLOW_USER_COMPONENTS is True
        return options._replace(is_editable=editable)

    # --- the end of the step ---

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to store when the step has ended."""
        if self._collector is not None:
            return True
        # Each task asks this: reading the arguments in full takes ten times as long.
        recorded = self._recorded if isinstance(self._recorded, list) else ()
        types = (str(each.get("type", "default")) for each in recorded if isinstance(each, dict))
        return any(kind not in _MADE_LATER for kind in types)

    def finish(self, *, failed: bool = False) -> bytes:
        """Store the cards as they are now, and return their packed manifest; never raises.

        Of a step that has failed, cards of types of its own have what was added to them.
        """
        if not self.is_needed or os.getpid() != self._pid:
            return b""
        publishing = self._published
        try:
            return publishing.finish(failed=failed)
        except Exception as error:  # noqa: BLE001 - nothing on a card fails a step
            described = describe_exception(error)
            text = f"The cards are not kept: {described.type}: {described.message}"
            print(text, file=sys.stderr)  # noqa: T201 - into the task's log
            return publishing.told

    # --- making and storing ---

    def make(self, images: Images, *, final: bool, failed: bool) -> list[Document | None]:
        """Each card as a document; None for one that needs none. May raise anything."""
        return [
            self._make(card, images, final=final, failed=failed) for card in self.collector.cards
        ]

    def _make(
        self, card: CardManager, images: Images, *, final: bool, failed: bool
    ) -> Document | None:
        from asyncflow.card_content.component import error_part
        from asyncflow.card_content.document import Document

        options = card.options
        parts = [error_part("@card", card.warning)] if card.warning else []
        title = options.options.get("title")
        titled = title if isinstance(title, str) else ""
        if options.type == HTML:
            if not final:
                return None
            html, error = self._html(options, images)
            return Document(HTML, [*parts, *error], titled, html)
        if options.type in BUILT_IN:
            parts += card.components.parts(images)
            return Document(options.type, parts, titled) if parts else None
        if not final or not failed:
            made = self._rendered(card, images, final=final)
            if made is None:
                return None
            html, more = made
            return Document(options.type, [*parts, *more], titled, html)
        return Document(options.type, [*parts, *card.components.parts(images)], titled)

    def _html(self, options: CardOptions, images: Images) -> tuple[bytes | str, list[Any]]:
        """What the attribute of an `html` card has, and what is wrong with it."""
        from asyncflow.card_content.component import error_part

        name = options.options.get("attribute", "html")
        try:
            html = getattr(self._flow, str(name))
        except AttributeError:
            message = f"The step has set no self.{name}, which this card shows."
            return b"", [error_part("No HTML", message)]
        if isinstance(html, bytes):
            html = html.decode("utf-8", "replace")
        if not isinstance(html, str):
            message = f"self.{name} is a {class_name(type(html))}: this card shows text, as HTML."
            return b"", [error_part("No HTML", message)]
        return _stored_html(html, images), []

    def _rendered(
        self, card: CardManager, images: Images, *, final: bool
    ) -> tuple[bytes | str, list[Any]] | None:
        """What the `render` of a type of the user's own makes: HTML, or parts."""
        from asyncflow.card_content.card_type import find_type
        from asyncflow.card_content.component import error_part, part_of

        options = card.options
        try:
            kind = find_type(options.type, type(self._flow))
            if not final and not (kind is not None and kind.RUNTIME_UPDATABLE):
                return None
            if kind is None:
                title = f"There is no type of cards {options.type!r}"
                return b"", [error_part(title, _NO_SUCH_TYPE)]
            made = self._call(kind, card, final=final)
        except BaseException as error:  # noqa: BLE001 - the user's code: it is shown
            if not options.save_errors:
                return None
            described = describe_exception(error)
            what = f"{described.type}: {described.message}"
            failure = error_part(f"{options.type} cannot be made", what, described.traceback)
            return b"", [failure, *card.components.parts(images)]
        html = isinstance(made, str)
        return (_stored_html(made, images), []) if html else (b"", [part_of(made, images)])

    def _call(self, kind: type[CardType], card: CardManager, *, final: bool) -> Any:
        from asyncflow.flow.current import current
        from asyncflow.flow.graph_info import graph_info
        from asyncflow.workers.process.rendered_task import RenderedTask

        graph = graph_info(self._node_graph, type(self._flow))
        options, components = dict(card.options.options), list(card.components)
        made = kind(options=options, components=components, graph=graph, flow=self._flow)
        task = RenderedTask(self._flow, lambda: current.task, is_finished=final)
        return made.render(task) if final else made.render_runtime(task, card.data)

    @property
    def _node_graph(self) -> Any:
        from asyncflow.flow.bound_task import task_of

        task = task_of(self._flow)
        assert task is not None, "a step runs on an instance that is bound"  # noqa: S101 - cards belong to such an instance
        return task.graph

    def put(self, data: bytes) -> ArtifactRef:
        """Store some bytes of a card."""
        return self._writer.put(data, name="a card")

    def sync(self) -> None:
        """As `ArtifactWriter.sync`."""
        self._writer.sync()

    def tell(self, cards: bytes) -> None:
        """Report what is on the cards now."""
        if self._tell is not None:
            self._tell(CardsChanged(self._key, cards))

    @property
    def refresh_seconds(self) -> float:
        """How often the cards are shown anew at most."""
        return min((each.options.refresh_interval for each in self.collector.cards), default=0.0)

    @property
    def timeout_seconds(self) -> float:
        """How long it may take to make the cards."""
        return max((each.options.timeout for each in self.collector.cards), default=TIMEOUT_SECONDS)


_NO_SUCH_TYPE: Final = (
    "A type of your own is a subclass of asyncflow.cards.MetaflowCard with this `type`, in the "
    "flow's module or imported there, or an entry point asyncflow.cards."
)
_MADE_LATER: Final = frozenset({"default", "blank"})
"""Types whose cards are made when somebody looks, if the step has added nothing."""


def _stored_html(html: str, images: Images) -> bytes | str:
    data = html.encode("utf-8", "backslashreplace")
    if len(data) > _HTML_BYTES:
        message = f"the HTML has {len(data) >> 20} MB; a card may have {_HTML_BYTES >> 20}"
        raise ValueError(message)
    return data.decode() if len(data) <= _SHORT_HTML_BYTES else images.add(data)


class _Publishing:
    """Stores the cards of a task when they are to be seen, and when the step has ended.

    `ask` tells them at once, or, if that was done a moment ago, a thread does it in time.
    """

    def __init__(self, cards: TaskCards) -> None:
        self._cards = cards
        self._lock = threading.Lock()
        self._making = threading.Lock()  # the user's code is called by one thread at a time
        self._stored: dict[str, ArtifactRef] = {}  # by the name of an image, or a card's number
        self._documents: dict[str, bytes] = {}  # what was last stored of each card
        self._credit = _BURST_SECONDS
        self._told_at = float("-inf")
        self._credit_at = time.monotonic()
        self._timer: threading.Timer | None = None
        self._closed = False
        self._stuck = False  # the user's code has not come back
        self.told = b""
        """The manifest that was reported last."""

    def ask(self) -> None:
        """Have the cards told as they are now, or as they are in a moment."""
        cards = self._cards
        if self._closed or self._stuck or os.getpid() != cards._pid:  # noqa: SLF001 - a part of the task's cards
            return
        with self._lock:
            if self._timer is not None:
                return
            wait = self._wait()
            if wait > 0:
                self._begin_timer(wait)
                return
        self._publish()

    def _wait(self) -> float:
        """How many seconds an update has to wait for its turn."""
        now = time.monotonic()
        self._credit = min(_BURST_SECONDS, self._credit + now - self._credit_at)
        self._credit_at = now
        due = self._told_at + self._cards.refresh_seconds - now
        return max(due, 1.0 - self._credit)

    def _begin_timer(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, copy_context().run, (self._on_time,))
        self._timer.daemon = True
        mask = block_stop_signals()  # those are for the thread that runs the step
        try:
            self._timer.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _on_time(self) -> None:
        with self._lock:
            self._timer = None
        self._publish()

    def _publish(self) -> None:
        """Store and tell the cards; whatever goes wrong shows at the next time, or at the end."""
        try:
            made = self._made(final=False, failed=False)
            with self._lock:
                if self._closed or made is None:
                    return
                cards, size = self._store(*made)
                self._told_at = time.monotonic()
                self._credit -= max(1.0, size / _BYTES_PER_SECOND)
                if cards != self.told:
                    self.told = cards
                    self._cards.sync()
                    reached("card.tell")
                    self._cards.tell(cards)
                    reached("card.told")
        except Exception:  # noqa: BLE001, S110 - nothing on a card fails a step, and the end comes
            pass

    def finish(self, *, failed: bool) -> bytes:
        """Store the cards for good, and return their manifest; nothing is told any more."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
        made = None if self._stuck else self._made(final=True, failed=failed)
        with self._lock:
            self._closed = True
            if made is None:
                return self.told
            cards, _ = self._store(*made)
            self._cards.sync()
            self.told = cards
            reached("card.kept")
            return cards

    def _made(self, *, final: bool, failed: bool) -> tuple[list[Document | None], Images] | None:
        """The cards as documents; None if that takes too long, once and for all."""
        from asyncflow.card_content.component import Images

        images = Images()

        def make() -> list[Document | None]:
            return self._cards.make(images, final=final, failed=failed)

        try:
            with self._making:
                return in_thread(make, self._cards.timeout_seconds), images
        except TimeoutError:
            self._stuck = True
            seconds = self._cards.timeout_seconds
            text = f"The cards of this task are not made: that took more than {seconds:g} s"
            print(text, file=sys.stderr)  # noqa: T201 - into the task's log
            return None

    def _store(self, documents: list[Document | None], images: Images) -> tuple[bytes, int]:
        """Store what is new; return the packed manifest, and the number of new bytes."""
        from asyncflow.card_content.document import pack_document

        refs: dict[str, ArtifactRef] = {}
        size = 0
        for number, document in enumerate(documents):
            if document is None:
                continue
            name, packed = str(number), pack_document(document)
            if self._documents.get(name) != packed:
                self._stored[name] = self._cards.put(packed)
                self._documents[name] = packed
                size += len(packed)
            refs[name] = self._stored[name]
        for name, data in images.by_name.items():
            if name not in self._stored:
                self._stored[name] = self._cards.put(data)
                size += len(data)
            refs[name] = self._stored[name]
        return (pack_manifest(refs) if refs else b""), size


def in_thread(call: Callable[[], Result], seconds: float) -> Result:
    """Call it in a thread of its own, and return its result.

    Raises:
        TimeoutError: It takes longer than `seconds`. It is stopped if it runs Python code, and left
            behind if not.
        BaseException: What it raises.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised where the caller waits
            errors.append(error)

    thread = threading.Thread(target=copy_context().run, args=(run,), name="asyncflow-cards")
    thread.daemon = True
    mask = block_stop_signals()  # those are for the thread that runs the step
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    thread.join(seconds or None)
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
        )
        raise TimeoutError
    if errors:
        raise errors[0]
    return results[0]
