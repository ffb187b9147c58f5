"""The mailbox of a run: what other processes ask of the engine that runs it.

The file `mailbox` beside a run's journal grows at its end. Any process of the store may append a
message; the engine reads those that have come, each once, and what it does then is in the journal.
A message is msgpack, framed like a journal record, length and checksum first:

    [version, id, kind, by, microseconds since 1970, {argument: value, ...}]

`id` is unique, `by` says for people who has sent it. A reader passes over a kind that it does not
know. The file is changed under the lock of the run's folder, as the tags are, so messages of
several processes follow one another. It has at most 1 MiB.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

import msgpack

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.user_name import user_name
from asyncflow.errors import RecordError, StoreError
from asyncflow.events.field_types import is_plain
from asyncflow.events.manifests import unpack
from asyncflow.store.frames import PREFIX_BYTES, frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.store.interface import StoredRun

MAILBOX: Final = "mailbox"
"""The name of the file."""
CANCEL: Final = "cancel"
"""The kind of message that asks for the end of the run; its argument is `reason`."""
_VERSION: Final = 1
_PARTS: Final = 6
_MOST_BYTES: Final = 1 << 20
_MOST_CHARACTERS: Final = 1000
"""The longest text of a message."""


class Message(NamedTuple):
    """What somebody asks of a run's engine."""

    id: str
    """Names the message, in all stores."""
    kind: str
    by: str
    """Who has sent it, and from where."""
    time: int
    """When, in microseconds since 1970, by the sender's clock."""
    arguments: Mapping[str, str]


def post(run: StoredRun, kind: str, **arguments: str) -> Message:
    """Append a message; when this returns, it survives a power cut.

    Raises:
        StoreError: It cannot be written, or the mailbox is full.
    """
    by = f"{user_name()}@{os.uname().nodename} (process {os.getpid()})"
    message = Message(os.urandom(8).hex(), kind, by, time.time_ns() // 1000, arguments)
    packed = frame(msgpack.packb([_VERSION, *message], unicode_errors="replace"))

    def added(data: bytes) -> bytes:
        if len(data) + len(packed) > _MOST_BYTES:
            message = f"the mailbox of {run.pathspec} is full: its engine has been sent too much"
            raise StoreError(message)
        return data + packed

    run.update_file(MAILBOX, added, most=_MOST_BYTES)
    return message


def messages_in(run: StoredRun, offset: int) -> tuple[list[Message], int]:
    """The messages from `offset` on, and the offset after the last of them.

    Raises:
        RecordError: The mailbox is damaged from there on; the messages before are lost to readers.
        OSError: It cannot be read.
    """
    try:
        if run.file_size(MAILBOX) <= offset:
            return [], offset
        data = run.read_file(MAILBOX, most=_MOST_BYTES, offset=offset)
    except (FileNotFoundError, NotADirectoryError):
        return [], offset
    messages, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        payload = data[at + PREFIX_BYTES : at + PREFIX_BYTES + size]
        if frame(payload)[:PREFIX_BYTES] != data[at : at + PREFIX_BYTES]:
            raise RecordError(f"{run.place}/{MAILBOX} is damaged at byte {offset + at}")
        at += PREFIX_BYTES + size
        message = _unpacked(payload)
        if message is not None:
            messages.append(message)
    return messages, offset + at


def _unpacked(payload: bytes) -> Message | None:
    """A message; None if a later version wrote it.

    Raises:
        RecordError: It is none.
    """
    values: Any = unpack(payload)
    if type(values) is not list or not values or type(values[0]) is not int:
        raise RecordError("a message of a mailbox is not what was written")
    if values[0] != _VERSION:
        return None
    match values[1:]:
        case [str(number), str(kind), str(by), int(sent), dict(arguments)] if all(
            isinstance(text, str) and is_plain(text, 0)
            for text in (number, kind, by, *arguments, *arguments.values())
        ):
            cut = {name: text[:_MOST_CHARACTERS] for name, text in arguments.items()}
            return Message(number, kind, by[:_MOST_CHARACTERS], sent, cut)
    raise RecordError("a message of a mailbox is not what was written")
