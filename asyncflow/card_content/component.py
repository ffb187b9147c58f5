"""What all components of cards have in common: how one becomes plain data.

Nothing that a component does may fail the step that has made it. So a component keeps what it is
given, and what is wrong with that is found when its part is made, and shown in its place.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any, Final

from blake3 import blake3

from asyncflow._support.safe_text import class_name, storable_text
from asyncflow._support.tracebacks import describe_exception

MOST_TEXT_BYTES: Final = 256 << 10
"""The longest text of one component; more than anybody reads."""
MOST_BLOB_BYTES: Final = 16 << 20
"""The largest image, or specification of a chart."""
MOST_BLOBS: Final = 500
"""The most images of one task's cards: each is a name in the event of the task's end."""
MOST_BLOBS_BYTES: Final = 64 << 20
"""The most bytes of all of them."""
_MOST_DEPTH: Final = 4
"""So deep components may be in others, such as an image in a table in a list."""
_SHORT_BYTES: Final = 1 << 10
_HASH_CHARACTERS: Final = 32

Part = dict[str, Any]
"""A component as plain data; `kind` says how it is drawn."""


class Images:
    """The large bytes of a task's cards: stored once each, and named by their hash in parts."""

    def __init__(self) -> None:
        self.by_name: dict[str, bytes] = {}
        self._size = 0

    def add(self, data: bytes) -> str:
        """Add some bytes, and return their name.

        Raises:
            ValueError: They are too large, or too many.
        """
        if len(data) > MOST_BLOB_BYTES:
            message = f"{len(data) >> 20} MB is more than the {MOST_BLOB_BYTES >> 20} MB of a card"
            raise ValueError(message)
        name = "#" + blake3(data).hexdigest()[:_HASH_CHARACTERS]
        if name not in self.by_name:
            if len(self.by_name) >= MOST_BLOBS or self._size + len(data) > MOST_BLOBS_BYTES:
                message = (
                    f"the cards of a task may have {MOST_BLOBS} images, "
                    f"of {MOST_BLOBS_BYTES >> 20} MB in all"
                )
                raise ValueError(message)
            self.by_name[name] = data
            self._size += len(data)
        return name

    def __repr__(self) -> str:
        return f"<Images {len(self.by_name)}, {self._size} bytes>"


class CardComponent:
    """Something on a card. A subclass of your own has a `render`.

    `render` returns text, plain data, another component, or a list of components. An exception
    in it is shown on the card.
    """

    REALTIME_UPDATABLE = True
    """Metaflow's: whether it may change while the step runs. Here each component may."""

    _component_id: str | None = None

    @property
    def component_id(self) -> str | None:
        """Its id within the card, as given to `append`; None if it was given none."""
        return self._component_id

    @component_id.setter
    def component_id(self, value: str) -> None:
        self._component_id = str(value)

    def update(self, *_: Any, **__: Any) -> None:
        """Change what is shown; most kinds of components have an `update` of their own."""
        warn(f"{type(self).__name__} has no update: append another one instead")

    def render(self) -> Any:
        """What to show: text, plain data, another component, or a list of components."""
        message = f"{class_name(type(self))} has no render"
        raise NotImplementedError(message)

    def _part(self, images: Images, depth: int) -> Part:
        """The component as plain data; may raise anything."""
        return part_of(self.render(), images, depth + 1)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def part_of(component: object, images: Images, depth: int = 0) -> Part:
    """A component as plain data; if that fails, an error in its place."""
    if depth > _MOST_DEPTH:
        return error_part("This component is nested too deep to be shown")
    try:
        return _part_of(component, images, depth)
    except BaseException as error:  # noqa: BLE001 - code of the user's: nothing on a card fails a step
        described = describe_exception(error)
        title = f"{class_name(type(component)).rpartition('.')[2]} cannot be shown"
        return error_part(title, f"{described.type}: {described.message}", described.traceback)


def _part_of(component: object, images: Images, depth: int) -> Part:
    if isinstance(component, CardComponent):
        return component._part(images, depth)  # noqa: SLF001 - the components are one family
    if component is None:
        return {"kind": "group", "parts": []}
    if isinstance(component, str):
        return {"kind": "text", "text": text(component)}
    if isinstance(component, list | tuple):
        return {"kind": "group", "parts": [part_of(each, images, depth + 1) for each in component]}
    if isinstance(component, dict):
        shown = json.dumps(component, indent=2, ensure_ascii=False, default=str)
        return {"kind": "json", "text": text(shown)}
    return error_part(
        f"{class_name(type(component))} is no component",
        "Use one of asyncflow.cards: Markdown(...) for text, Artifact(...) for any value.",
    )


def error_part(title: str, message: str = "", traceback: str = "") -> Part:
    """What is shown in the place of something that went wrong."""
    return {
        "kind": "error",
        "title": text(title, _SHORT_BYTES),
        "text": text(message),
        "traceback": text(traceback),
    }


def text(value: object, most_bytes: int = MOST_TEXT_BYTES) -> str:
    """Anything as text that can be stored, its middle cut out if it is too long."""
    return storable_text("".join(str(value)), most_bytes)


def optional(value: object, most_bytes: int = _SHORT_BYTES) -> str:
    """A label or a title; empty for None."""
    return "" if value is None else text(value, most_bytes)


def plain_number(value: object) -> int | float | str:
    """A number as it can be packed and drawn; NumPy's count, too, and others are text."""
    if isinstance(value, bool):
        return str(value)
    if not isinstance(value, int | float):
        item = getattr(value, "item", None)
        value = item() if callable(item) else value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)  # NaN is no JSON
    if isinstance(value, int):
        return int(value) if -(1 << 53) <= value <= 1 << 53 else str(value)
    return text(value, _SHORT_BYTES)


def warn(message: str) -> None:
    """Print a warning to the task's log, as Metaflow does."""
    print(f"[@card WARNING] {message}", file=sys.stderr)  # noqa: T201 - into the task's log
