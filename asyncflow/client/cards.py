"""Cards of tasks, as they are looked back at.

    for card in get_cards(task):
        card.view()

A card of the type `default` is made here, when somebody looks: the store has only what the step has
added. So every task of a step under `@card` has its card, also one that runs, has failed or died.
"""

# ruff: noqa: SLF001 - a card is a view of a task, and asks it

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from asyncflow.card_content.document import MOST_DOCUMENT_BYTES, Document, read_document
from asyncflow.card_content.options import card_options
from asyncflow.client.objects import Task
from asyncflow.errors import ArtifactError, NotFoundError, RecordError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncflow.card_content.options import CardOptions
    from asyncflow.values import Manifest

_HASH_CHARACTERS: Final = 20
_MOST_IMAGE_BYTES: Final = 64 << 20


class Card:
    """A card of a task; `get_cards` finds it. Its content is read when it is asked for."""

    __slots__ = ("_options", "_task")

    def __init__(self, task: Task, options: CardOptions) -> None:
        self._task, self._options = task, options

    @property
    def type(self) -> str:
        """The type of its `@card`, such as `default`."""
        return self._options.type

    @property
    def id(self) -> str | None:
        """The id of its `@card`; None if it has none."""
        return self._options.id

    @property
    def name(self) -> str:
        """Its name among the cards of its task: its id, or its type; `default-2` is a second."""
        return self._options.name

    @property
    def number(self) -> int:
        """Which of the step's cards it is, from 0, in the order of the decorators."""
        return self._options.number

    @property
    def pathspec(self) -> str:
        """`Flow/run/step/task` of its task."""
        return self._task.pathspec

    @property
    def path(self) -> str:
        """Names the card within its store: the task and the number."""
        return f"{self.pathspec}/cards/{self.number}"

    @property
    def hash(self) -> str:
        """Names the card within its task, as `asyncflow card list` shows it."""
        return blake3(self.path.encode()).hexdigest()[:_HASH_CHARACTERS]

    @property
    def version(self) -> str:
        """Changes whenever the card does; nothing of it is read but the journal."""
        told = self._task._attempts
        ref = told.cards().get(str(self.number))
        content = "" if ref is None else self._task._place.artifacts.sha(ref)[:_HASH_CHARACTERS]
        return f"{told.status()}:{told.last_event().attempt}:{content}"

    @property
    def origin_pathspec(self) -> str | None:
        """The task that has made it, if this one was taken over from the run that was resumed."""
        return self._task.origin_pathspec

    @property
    def from_resumed(self) -> bool:
        """Whether its task was taken over from the run that was resumed."""
        return self.origin_pathspec is not None

    def get(self) -> str:
        """The card as one HTML file, which needs nothing else.

        Raises:
            StoreError: It cannot be read.
        """
        from asyncflow.card_content.html import card_page

        return card_page(self.drawing())

    def drawing(self) -> dict[str, Any]:
        """The card as plain data, with its images, as a page draws it.

        docs/reference/cards.md describes it.

        Raises:
            StoreError: It cannot be read.
        """
        from asyncflow.client.card_drawing import draw

        document, manifest = self._stored()
        return draw(self._task, self._options, document, lambda name: self._image(name, manifest))

    def get_data(self) -> dict[str, Any]:
        """The same as `drawing`."""
        return self.drawing()

    def view(self) -> str:
        """Open the card, as it is now, in a browser of this machine; return the file's address."""
        import webbrowser

        fd, path = tempfile.mkstemp(suffix=".html", prefix="asyncflow-card-")
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(self.get())
        address = f"file://{path}"
        webbrowser.open(address)
        return address

    def _repr_html_(self) -> str:
        from asyncflow.card_content.html import framed

        return framed(self.get(), title=f"{self.pathspec}: {self._options.label}")

    def __repr__(self) -> str:
        named = f" {self.id!r}" if self.id is not None else ""
        return f"<Card {self.type}{named} of {self.pathspec}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Card):
            return NotImplemented
        return (self._task, self.number) == (other._task, other.number)

    def __hash__(self) -> int:
        return hash((self._task, self.number))

    # --- what is stored -----------------------------------------------------------------------

    def _stored(self) -> tuple[Document | None, Manifest]:
        """The stored document, if there is one, and the refs of its images.

        Raises:
            StoreError: It cannot be read.
        """
        manifest = self._task._attempts.cards()
        ref = manifest.get(str(self.number))
        if ref is None:
            return None, manifest
        if ref.size > MOST_DOCUMENT_BYTES:
            raise StoreError(f"{self.path} cannot be read: it is longer than a card may be")
        data = bytes(self._task._place.artifacts.load_bytes(ref, self.path))
        try:
            return read_document(data), manifest
        except RecordError as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from error

    def _image(self, name: str, manifest: Manifest) -> bytes:
        """The bytes that the document names.

        Raises:
            ArtifactError: They are not there, or damaged.
        """
        ref = manifest.get(name)
        if ref is None or ref.size > _MOST_IMAGE_BYTES:
            raise ArtifactError(f"{self.path} has no bytes {name!r}", pathspec=self.pathspec)
        return bytes(self._task._place.artifacts.load_bytes(ref, self.path))


class CardContainer:
    """The cards of a task: a list that a notebook shows.

    Indexes and slices, `len` and `for` work as with a list.
    """

    def __init__(self, cards: Sequence[Card], *, origin_pathspec: str | None = None) -> None:
        self._cards = tuple(cards)
        self.origin_pathspec = origin_pathspec
        """The task that has made them, if the task was taken over from a run that was resumed."""
        self.from_resumed = origin_pathspec is not None

    def __len__(self) -> int:
        return len(self._cards)

    def __iter__(self) -> Iterator[Card]:
        return iter(self._cards)

    def __getitem__(self, index: int) -> Card:
        return self._cards[index]

    def _repr_html_(self) -> str:
        return "\n".join(card._repr_html_() for card in self._cards)

    def __repr__(self) -> str:
        return f"<CardContainer {', '.join(map(repr, self._cards)) or 'without cards'}>"


def get_cards(
    task: Task | str,
    id: str | None = None,  # noqa: A002 - Metaflow's
    type: str | None = None,  # noqa: A002 - Metaflow's
    follow_resumed: bool = True,  # noqa: FBT001, FBT002 - Metaflow's signature
    *,
    store: str | os.PathLike[str] | None = None,
) -> CardContainer:
    """The cards of a task, in the order of the step's decorators.

    A task that runs has the cards as they are now; ask again for what has changed since.

    Args:
        task: The task, or its pathspec.
        id: Only cards with this id.
        type: Only cards of this type.
        follow_resumed: Whether a task that was taken over from a run that was resumed has the cards
            that were made there; else it has none.
        store: Where to find the task of a pathspec; by default as for `Task`.

    Raises:
        NotFoundError: There is no such task.
        StoreError: There is no store, or it cannot be read.
        TypeError: `task` is neither of the two.
        ValueError: The text is not a task's pathspec.
    """
    if not isinstance(task, Task):
        task = Task(task, store=store)
    origin = task.origin_pathspec
    options = [] if origin is not None and not follow_resumed else cards_of_step(task)
    chosen = [
        Card(task, each) for each in options if id in {None, each.id} and type in {None, each.type}
    ]
    return CardContainer(chosen, origin_pathspec=origin)


def cards_of_step(task: Task) -> list[CardOptions]:
    """The arguments of each `@card` of a task's step, according to the graph of its run."""
    graph, step = task._record.journal.graph, task._attempts.step
    if step not in graph:
        raise NotFoundError(f"{task.pathspec}: its step is not in the graph of its run")
    return card_options(graph[step].options.get("card"))
