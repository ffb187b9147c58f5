"""The claims for the tasks that a worker was sent together, see `StartItems`."""

from __future__ import annotations

import os
from contextlib import suppress

from asyncflow.workers.messages import unpack_claims

_PIPE_BYTES = 1 << 16  # as much as a pipe holds


class ClaimPipe:
    """The pipe, whose read end the worker has, too; both read without waiting."""

    __slots__ = ("__weakref__", "_writing", "number")

    def __init__(self) -> None:
        self.number, self._writing = os.pipe()
        """The descriptor of the read end."""
        for end in (self.number, self._writing):
            os.set_blocking(end, False)

    def write(self, claims: bytes) -> bool:
        """Add claims; False if there is no room for them.

        Raises:
            OSError: It is closed.
        """
        try:
            return os.write(self._writing, claims) == len(claims)
        except BlockingIOError:
            return False

    def take_back(self) -> list[tuple[int, int]]:
        """The runs and tasks that nobody has claimed; the worker cannot claim them any more."""
        with suppress(BlockingIOError, OSError):
            return unpack_claims(os.read(self.number, _PIPE_BYTES))
        return []

    def close(self) -> None:
        """Close both ends. Harmless when repeated."""
        ends, (self.number, self._writing) = (self.number, self._writing), (-1, -1)
        for end in ends:
            if end >= 0:
                os.close(end)

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            self.close()

    def __repr__(self) -> str:
        return f"<ClaimPipe {self.number}>"
