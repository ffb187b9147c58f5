"""A document as `page/static/cards.js` draws it: JSON, with the images within.

Markdown and code are taken apart here, so that the script makes elements of a few kinds and puts
text into them. It never parses markup.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

from asyncflow.card_content.component import Part, error_part
from asyncflow.card_content.markdown import highlighted, markdown_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def drawable(parts: Iterable[Part], image: Callable[[str], bytes]) -> list[Part]:
    """The parts of a document, ready to be drawn; `image` finds bytes by their name."""
    return [_drawable(part, image) for part in parts]


def _drawable(part: Part, image: Callable[[str], bytes]) -> Part:
    kind = part["kind"]
    try:
        draw = _DRAWN.get(kind)
        return part if draw is None else {"kind": kind, **draw(part, image)}
    except Exception as error:  # noqa: BLE001 - one part that cannot be read does not hide the others
        return error_part(f"This {kind} cannot be shown", f"{type(error).__name__}: {error}")


def _markdown(part: Part, image: Callable[[str], bytes]) -> Part:  # noqa: ARG001 - as the others
    return {"tree": markdown_tree(part["text"])}


def _code(part: Part, image: Callable[[str], bytes]) -> Part:  # noqa: ARG001 - as the others
    return {"text": part["text"], "tokens": highlighted(part["text"])}


def _image(part: Part, image: Callable[[str], bytes]) -> Part:
    data = part["image"]
    if isinstance(data, str):
        data = image(data)
    url = f"data:{part['mime']};base64,{base64.b64encode(data).decode()}"
    return {"url": url, "label": part["label"]}


def _vega(part: Part, image: Callable[[str], bytes]) -> Part:
    text = part["spec"]
    if text.startswith("#"):
        text = image(text).decode("utf-8", "replace")
    return {"spec": json.loads(text), "controls": part["controls"]}


def _table(part: Part, image: Callable[[str], bytes]) -> Part:
    rows = [
        [_drawable(cell, image) if isinstance(cell, dict) else cell for cell in row]
        for row in part["rows"]
    ]
    return {**part, "rows": rows}


def _group(part: Part, image: Callable[[str], bytes]) -> Part:
    return {**part, "parts": drawable(part["parts"], image)}


def _timeline(part: Part, image: Callable[[str], bytes]) -> Part:
    events = [
        {
            **event,
            "payloads": [[name, _drawable(each, image)] for name, each in event["payloads"]],
        }
        for event in part["events"]
    ]
    return {**part, "events": events}


_DRAWN: Final[dict[str, Any]] = {
    "markdown": _markdown,
    "code": _code,
    "image": _image,
    "vega": _vega,
    "table": _table,
    "group": _group,
    "section": _group,
    "timeline": _timeline,
}
"""What makes a part of each kind ready; the others are as they are."""


def uses_vega(parts: Iterable[Part]) -> bool:
    """Whether any of these parts, as they are drawn, is a chart."""
    for part in parts:
        inner: list[Any] = list(part.get("parts") or ())
        inner += [cell for row in part.get("rows") or () for cell in row if isinstance(cell, dict)]
        inner += [each[1] for event in part.get("events") or () for each in event["payloads"]]
        if part["kind"] == "vega" or uses_vega(inner):
            return True
    return False
