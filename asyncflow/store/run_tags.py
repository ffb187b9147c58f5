"""The tags of a run that were changed after its start.

A run keeps the tags that it was started with in its first event. Whoever changes them writes the
file `tags` beside the journal, which from then on has all of the run's own tags. It is msgpack,
framed like a journal record, length and checksum first:

    [version, [tag, ...]]

The file is replaced as a whole, under a lock, so changes of several processes add up. The engine
that runs the run neither reads nor writes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgpack

from asyncflow.errors import RecordError, StoreError
from asyncflow.events.field_types import is_plain
from asyncflow.events.manifests import unpack
from asyncflow.store.frames import PREFIX_BYTES, frame
from asyncflow.values import tags_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncflow.store.interface import StoredRun

TAGS: Final = "tags"
"""The name of the file."""
MOST_CHARACTERS: Final = 500
"""The longest tag, as in Metaflow."""
_VERSION: Final = 1
_MOST_BYTES: Final = 1 << 20
_BREAKING: Final = {"Cc", "Zl", "Zp"}
"""Control characters, and the separators of lines and of paragraphs."""
_HALF: Final = "Cs"
"""Half of a surrogate pair, which is not text; Python also uses it for a byte that is not UTF-8."""


def wrong_with_tag(tag: object) -> str:
    """Why something cannot be a tag, in a few words; empty if it can."""
    if not isinstance(tag, str):
        return f"is of type {type(tag).__name__!r}"
    if not tag.strip():
        return "is empty"
    if len(tag) > MOST_CHARACTERS:
        return f"has more than {MOST_CHARACTERS} characters"
    import unicodedata

    categories = {unicodedata.category(character) for character in tag}
    if _HALF in categories:
        return "has a byte that is not UTF-8, or half a surrogate pair, which is not text"
    if categories & _BREAKING:
        return "has a line break or another control character"
    return ""


def changed_tags(run: StoredRun) -> tuple[str, ...] | None:
    """A run's own tags, if they were changed after its start; else None.

    Raises:
        RecordError: The file is damaged, or a later version wrote it.
    """
    try:
        data = run.read_file(TAGS, most=_MOST_BYTES)
    except FileNotFoundError:
        return None
    try:
        return _unpacked(data)
    except RecordError as error:
        message = (
            f"{run.place}/{TAGS} cannot be read: {error}; delete it, and the run has the tags "
            "that it was started with"
        )
        raise RecordError(message) from error


def change_tags(
    run: StoredRun, first: Iterable[str], change: Callable[[set[str]], set[str]]
) -> None:
    """Change a run's own tags; no other change comes in between.

    `first` are the tags that it was started with. A crash leaves the tags as they were or as they
    are afterwards.

    Raises:
        StoreError: They cannot be written, are too many, or are damaged.
    """

    def changed(data: bytes) -> bytes:
        before = set(_unpacked(data) if data else first)
        after = change(before)
        if after == before:
            return data
        packed = frame(msgpack.packb([_VERSION, sorted(after)]))
        if len(packed) > _MOST_BYTES:
            message = f"the tags of {run.pathspec} take more than {_MOST_BYTES >> 20} MiB"
            raise StoreError(message)
        return packed

    run.update_file(TAGS, changed, most=_MOST_BYTES)


def _unpacked(data: bytes) -> tuple[str, ...]:
    """The tags in the bytes of the file.

    Raises:
        RecordError: They are not what was written, or a later version wrote them.
    """
    payload = data[PREFIX_BYTES:]
    if frame(payload)[:PREFIX_BYTES] != data[:PREFIX_BYTES]:
        raise RecordError("its bytes are not those that were written")
    values = unpack(payload)
    if type(values) is not list or len(values) < 2 or type(values[0]) is not int:  # noqa: PLR2004 - a version and tags
        raise RecordError("it is not a version and tags")
    if values[0] != _VERSION:
        raise RecordError("a later version of asyncflow wrote it; upgrade asyncflow")
    if type(values[1]) is not list or not all(is_plain(tag, 0) for tag in values[1]):
        raise RecordError("its tags are not text")
    return tags_from(values[1])
