"""Tells a task the journal offsets of the results of its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

from asyncflow._support.commit_points import reached
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.workers.packed_numbers import pack_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.store.interface import StoredRun
    from asyncflow.store.task_table import TaskTable

SPILLED: Final = "inputs-"
"""The prefix of the names of files with the inputs of wide joins."""


class InputOffsets:
    """The inputs of one run's tasks, as offsets into its journal."""

    def __init__(self, run: StoredRun, table: TaskTable) -> None:
        """Prepare for a run; its table tells at which offset the journal has a task's end."""
        self._run, self._table = run, table

    def offsets(self, inputs: Sequence[int]) -> bytes:
        """The offsets of these tasks' results, 8 bytes each; task 0 is the run itself."""
        if len(inputs) == 1:
            at = self._table.ended_at(inputs[0]) if inputs[0] else FIRST_RECORD
            return at.to_bytes(8, "little")
        return pack_numbers(self._table.all_ended_at(inputs))

    def spill(self, task_id: int, inputs: Sequence[int]) -> tuple[str, int]:
        """Write the offsets of a wide join to a file; return its name and CRC-32. In a thread."""
        name = f"{SPILLED}{task_id}"
        reached("inputs.spill")
        offsets = self.offsets(inputs)
        self._run.put_file(name, offsets)
        reached("inputs.spilled")
        return name, crc32(offsets)
