"""A card as plain data for `page/static/cards.js`: what is stored, and what the journal knows.

The default card has sections about its task: what it is, its parameters, its artifacts, its log. No
value is unpickled for them. A task that has failed shows its failure on every card.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asyncflow.card_content.component import error_part
from asyncflow.card_content.drawing import drawable
from asyncflow.card_content.options import DEFAULT
from asyncflow.client.previews import PreviewLimits, preview_of
from asyncflow.client.words import how_large, how_long, how_many
from asyncflow.errors import AsyncflowError
from asyncflow.values import Status, shown_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncflow.card_content.component import Part
    from asyncflow.card_content.document import Document
    from asyncflow.card_content.options import CardOptions
    from asyncflow.client.objects import Task

VERSION: Final = 1
_LOG_LINES: Final = 200
_LOG_CHARACTERS: Final = 64 << 10
_MOST_ARTIFACTS: Final = 200
_MOST_PARAMETERS: Final = 200
_MOST_TABLES: Final = 5
_PREVIEW: Final = PreviewLimits(
    characters=200, items=20, rows=10, seconds=0.02, bytes_read=64 << 10
)
_PREVIEW_SECONDS: Final = 0.5  # for all artifacts
_TIME: Final = "%Y-%m-%d %H:%M:%S UTC"


def draw(
    task: Task,
    options: CardOptions,
    document: Document | None,
    image: Callable[[str], bytes],
) -> dict[str, Any]:
    """The card as JSON can express it; see docs/reference/cards.md.

    Raises:
        StoreError: The journal cannot be read.
    """
    parts = list(_failure(task))
    html = None
    title = options.options.get("title")
    if document is not None:
        parts += drawable(document.parts, image)
        html = _html(document.html, image)
        title = document.title or title
    if options.type == DEFAULT:
        parts += _sections(task)
    return {
        "version": VERSION,
        "type": options.type,
        "id": options.id,
        "name": options.name,
        "number": options.number,
        "pathspec": task.pathspec,
        "status": str(task.status),
        "title": title if isinstance(title, str) else "",
        "html": html,
        "parts": parts,
    }


def _html(stored: bytes | str, image: Callable[[str], bytes]) -> str | None:
    if isinstance(stored, str) and stored.startswith("#"):
        stored = image(stored)
    if isinstance(stored, bytes):
        stored = stored.decode("utf-8", "replace")
    return stored or None


def _failure(task: Task) -> Iterator[Part]:
    failure = task.exception or task.caught
    if failure is None:
        return
    title = "The task has failed" if task.exception is not None else "The failure was caught"
    if task.status is Status.CANCELLED:
        title = "The task was stopped"
    yield error_part(title, f"{failure.type}: {failure.message}", failure.traceback)


def _sections(task: Task) -> Iterator[Part]:
    for title, make in (
        ("Task", _facts),
        ("Parameters", _parameters),
        ("Artifacts", artifact_parts),
        ("Output", _log),
        ("Errors and warnings printed", _errors),
    ):
        try:
            parts = list(make(task))
        except (AsyncflowError, OSError) as error:  # one that cannot be read does not hide the rest
            parts = [error_part(f"{title} cannot be read", str(error))]
        if parts:
            yield {"kind": "section", "title": title, "parts": parts}


def _facts(task: Task) -> Iterator[Part]:
    key, seconds = task.key, task.seconds
    facts: list[list[str]] = [
        ["task", task.pathspec],
        ["status", str(task.status)],
        ["started", task.created_at.strftime(_TIME)],
    ]
    if seconds is not None:
        facts.append(["took", how_long(seconds)])
    if task.attempt:
        facts.append(["attempt", str(task.attempt + 1)])
    if key.path:
        facts.append(["item", shown_path(key.path)])
    if task.origin_pathspec:
        facts.append(["taken over from", task.origin_pathspec])
    metadata = task.metadata_dict
    facts += [
        [label, metadata[name]]
        for label, name in (("user", "user"), ("Python", "python_version"))
        if name in metadata
    ]
    tags = sorted(task.user_tags)
    if tags:
        facts.append(["tags", ", ".join(tags)])
    yield {"kind": "facts", "rows": facts}


def _parameters(task: Task) -> Iterator[Part]:
    given = task._record.started.parameters  # noqa: SLF001 - a card is a view of a task
    rows = [[name, str(text)] for name, text in islice(given.items(), _MOST_PARAMETERS)]
    if rows:
        yield {"kind": "facts", "rows": rows}


def artifact_parts(task: Task) -> Iterator[Part]:
    """What a task has set or inherited, as a card shows it.

    Raises:
        StoreError: The journal cannot be read.
    """
    told = task._attempts  # noqa: SLF001 - a card is a view of a task
    ours = told.record.started.artifacts
    refs = {name: ref for name, ref in told.manifest().items() if name not in ours}
    reader, room = task._place.artifacts, _PREVIEW_SECONDS  # noqa: SLF001 - a card is a view of a task
    rows, tables = [], []
    for name, ref in islice(sorted(refs.items()), _MOST_ARTIFACTS):
        shown = ""
        if room > 0:
            preview, seconds = preview_of(reader, ref, f"{task.pathspec}/{name}", _PREVIEW)
            room -= seconds
            shown = _in_words(preview)
            if preview["kind"] == "table":
                tables.append(_table(name, preview))
        rows.append([name, shown, ref.type_name, how_large(ref.size)])
    if rows:
        headers = ["name", "value", "type", "size"]
        yield {"kind": "table", "headers": headers, "rows": rows, "total": len(refs), "columns": 4}
    yield from tables[:_MOST_TABLES]


def _in_words(preview: dict[str, Any]) -> str:
    """What a preview says in one cell of a table."""
    match preview["kind"]:
        case "table":
            columns = preview.get("columns_count", len(preview["columns"]))
            rows = preview["length"]
            first = "many rows" if rows is None else how_many(rows, "row")
            return f"{first}, {how_many(columns, 'column')}"
        case "array":
            shape = " x ".join(map(str, preview["shape"]))
            return f"{shape} {preview['dtype']}: {preview['text']}"
        case "image":
            return f"{preview['format']}, {preview['width']} x {preview['height']}"
        case "unknown":
            return ""
        case _:
            return str(preview["text"])


def _table(name: str, preview: dict[str, Any]) -> Part:
    """The first rows of a data frame."""
    columns = preview["columns"]
    part = {
        "kind": "table",
        "headers": [str(each["name"]) for each in columns],
        "rows": preview["rows"],
        "total": len(preview["rows"]) if preview["length"] is None else preview["length"],
        "columns": preview.get("columns_count", len(columns)),
    }
    return {"kind": "section", "title": name, "parts": [part]}


def _log(task: Task) -> Iterator[Part]:
    return _tail(task, "stdout")


def _errors(task: Task) -> Iterator[Part]:
    return _tail(task, "stderr")


def _tail(task: Task, stream: str) -> Iterator[Part]:
    text = task.tail(_LOG_LINES, stream)[-_LOG_CHARACTERS:]
    if text.strip():
        yield {"kind": "log", "text": text}
