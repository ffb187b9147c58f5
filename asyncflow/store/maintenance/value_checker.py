"""Checks that stored values are as they were written.

The hash of a value in a segment is in the ref that names it. The hash of a blob is its name. Each
value is hashed once, however many tasks and runs share it; this keeps some 100 bytes for each.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from asyncflow.store.blobs import open_blob
from asyncflow.store.files import read_at
from asyncflow.store.run_ids import REMOVED
from asyncflow.values import Place

if TYPE_CHECKING:
    from asyncflow.store.layout import Layout
    from asyncflow.store.maintenance.findings import Damage, Findings
    from asyncflow.values import ArtifactRef

_SEGMENT, _BLOB = int(Place.SEGMENT), int(Place.BLOB)  # see asyncflow.store.artifacts
_CHUNK_BYTES: Final = 4 << 20
# above, checked ranges of segments are forgotten, and perhaps read twice
_KEPT_RANGES: Final = 4_000_000


class ValueChecker:
    """Checks the values of one store, each once, and reports which tasks damage affects."""

    def __init__(self, layout: Layout, findings: Findings) -> None:
        self._layout, self._findings = layout, findings
        self._ranges: set[int] = set()  # ranges of segments that were checked
        self._blobs: set[bytes] = set()  # digests of blobs that a ref has named
        self._bad: dict[tuple[str, int], Damage] = {}  # by file and offset
        self._numbers: dict[str, int] = {}  # of segments

    def check_ref(self, flow: str, ref: ArtifactRef, pathspec: str) -> None:
        """Check the bytes that a ref names, unless they were checked before."""
        place, _, _, size, digest, file, offset, _ = ref
        if place == _BLOB:
            if digest not in self._blobs:
                self._check_blob(digest, size)
            bad = self._bad.get((digest.hex(), 0))
        elif place == _SEGMENT:
            segment = f"{flow}/{file}"
            key = self._numbers.setdefault(segment, len(self._numbers)) << 64 | offset
            if key not in self._ranges:
                self._check_range(key, flow, segment, (offset, size, digest))
            bad = self._bad.get((segment, offset))
        else:
            return
        if bad is not None:
            bad.add(pathspec)

    def _check_blob(self, digest: bytes, size: int | None) -> None:
        self._blobs.add(digest)
        self._findings.verified.values += 1
        path = Path(self._layout.blob(digest))
        what = self._hash_blob(digest, size)
        if what:
            self._bad[digest.hex(), 0] = self._findings.damage(path, what)

    def _hash_blob(self, digest: bytes, size: int | None) -> str:
        """What is wrong with a blob; an empty text if nothing is."""
        hasher = blake3()
        try:
            with os.fdopen(open_blob(self._layout, digest), "rb", buffering=0) as file:
                left = os.fstat(file.fileno()).st_size
                if size is not None and left != size:
                    return f"it has {left} bytes instead of {size}"
                while chunk := file.read(min(left, _CHUNK_BYTES)):
                    hasher.update(chunk)
                    left -= len(chunk)
                    self._findings.verified.size += len(chunk)
                    self._findings.show_progress()
        except FileNotFoundError:
            return "the file is gone"
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        return "" if hasher.digest() == digest else "its bytes have another hash than its name says"

    def _check_range(
        self, key: int, flow: str, segment: str, wanted: tuple[int, int, bytes]
    ) -> None:
        if len(self._ranges) > _KEPT_RANGES:
            self._ranges.clear()
        self._ranges.add(key)
        self._findings.verified.values += 1
        path = self._segment_path(flow, segment)
        what = self._hash_range(path, *wanted)
        if what and (segment, wanted[0]) not in self._bad:
            self._bad[segment, wanted[0]] = self._findings.damage(path, what)

    def _segment_path(self, flow: str, segment: str) -> Path:
        path = self._layout.root / "flows" / segment
        if os.path.exists(path):  # noqa: PTH110 - the alternative raises without access
            return path
        removed = self._layout.root / "flows" / flow / REMOVED / segment.partition("/")[2]
        return removed if os.path.exists(removed) else path  # noqa: PTH110 - the alternative raises without access

    def _hash_range(self, path: Path, offset: int, size: int, digest: bytes) -> str:
        """What is wrong with a value in a segment; an empty text if nothing is."""
        try:
            data = read_at(str(path), offset, size)
        except FileNotFoundError:
            return "the file is gone"
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        self._findings.verified.size += len(data)
        if len(data) != size:
            return f"it ends before byte {offset + size}"
        if blake3(data).digest() != digest:
            return f"the value from byte {offset} on, {size} bytes, has another hash"
        return ""

    # --- what no ref names ---

    def is_named_segment(self, segment: str) -> bool:
        """Whether a ref has named this segment, `FLOW/RUN/FILE`."""
        return segment in self._numbers

    def is_named_blob(self, digest: bytes) -> bool:
        return digest in self._blobs

    def check_unnamed_blob(self, path: Path, digest: bytes) -> None:
        """Check a blob that no ref has named."""
        self._findings.verified.values += 1
        what = self._hash_blob(digest, None)
        if what and path.exists():  # a garbage collection may be going on
            self._findings.damage(path, f"{what}; it is unreferenced")
