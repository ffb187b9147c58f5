"""One changed byte in a file, as a failing disk leaves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def flip_byte(path: Path, at: int) -> None:
    """Change one byte of a file, even of a read-only one."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        [byte] = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
