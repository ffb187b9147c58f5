"""The cards of a task: which there are, one of them as data, as a document, and its pictures.

A card that is HTML is a document of its own. It is shown in a frame without an origin, and the
policy that comes with it says the same, so that it can reach nothing of the page even if somebody
opens its address.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from asyncflow.card_content.html import HTML_POLICY, card_page, html_for_frame, is_only_html
from asyncflow.client.cards import get_cards
from asyncflow.errors import NotFoundError
from asyncflow.page.answers import cut
from asyncflow.page.opened_runs import task_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.client.cards import Card
    from asyncflow.client.run_files import RunRecord

_SMALL_BYTES: Final = 10_000  # a picture that stays in the data
_POLICY: Final = f"sandbox allow-scripts; {HTML_POLICY}; frame-ancestors 'self'"
_PICTURES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


def cards_of(record: RunRecord, step: str, task_id: str) -> list[dict[str, Any]]:
    """Which cards a task has; `version` changes with what is on one.

    Raises:
        NotFoundError: There is no such task.
    """
    return [
        {
            "id": card.name,
            "type": card.type,
            "title": cut(card.id or card.type, 200),
            "number": card.number,
            "version": card.version,
        }
        for card in get_cards(task_of(record, step, task_id))
    ]


def card_of(record: RunRecord, step: str, task_id: str, name: str) -> Card:
    """A card of a task.

    Raises:
        NotFoundError: There is none of that name.
    """
    for card in get_cards(task_of(record, step, task_id)):
        if card.name == name:
            return card
    raise NotFoundError(f"{record.pathspec}/{step}/{task_id} has no card {name!r:.200}")


def card_data(card: Card, address: str) -> dict[str, Any]:
    """A card as data, whose larger pictures are at addresses of their own, below `address`."""
    drawing = card.drawing()
    drawing["html"] = None  # it is a document of its own
    for number, part in enumerate(_pictures(drawing["parts"])):
        if len(part["url"]) > _SMALL_BYTES and _picture(part["url"])[0] in _PICTURES:
            part["url"] = f"{address}/pictures/{number}"
    return drawing


def card_document(card: Card) -> Response:
    """A card as an HTML document, for a frame."""
    headers = {"Content-Security-Policy": _POLICY}
    drawing = card.drawing()
    html = html_for_frame(drawing["html"]) if is_only_html(drawing) else card_page(drawing)
    return Response(html, media_type="text/html", headers=headers)


def card_picture(card: Card, number: int) -> Response:
    """One of a card's pictures.

    Raises:
        NotFoundError: It has no such picture.
    """
    for at, part in enumerate(_pictures(card.drawing()["parts"])):
        if at == number:
            kind, data = _picture(part["url"])
            if kind in _PICTURES:
                headers = {"Content-Security-Policy": "sandbox; default-src 'none'"}
                return Response(data, media_type=kind, headers=headers)
    raise NotFoundError(f"{card.path} has no picture {number}")


def _pictures(node: Any) -> Iterator[dict[str, Any]]:
    """Every part with a picture, in the order of the card."""
    if isinstance(node, dict):
        if node.get("kind") == "image" and str(node.get("url", "")).startswith("data:"):
            yield node
        for value in node.values():
            yield from _pictures(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _pictures(value)


def _picture(url: str) -> tuple[str, bytes]:
    head, _, data = url.partition(",")
    kind = head.removeprefix("data:").partition(";")[0]
    try:
        return kind, base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return "", b""
