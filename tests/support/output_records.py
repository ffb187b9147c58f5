"""Records of what tasks print, as an engine writes them."""

from __future__ import annotations

from asyncflow.events.packing import pack_values
from asyncflow.events.records import LOGGED


def pack_logged(
    first_seq: int,
    time: int,
    task: tuple[str, int, int],
    stream: int,
    pid: int,
    data: bytes,
    previous: int,
) -> bytes:
    """The journal record of a chunk of output; `task` is step, task id and attempt."""
    return pack_values((LOGGED, first_seq, time, *task, stream, pid, data, previous))
