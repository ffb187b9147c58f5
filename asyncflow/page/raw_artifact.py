"""The stored bytes of an artifact, as an attachment: read piece by piece, and never run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

from blake3 import blake3
from starlette.responses import Response, StreamingResponse

from asyncflow.client.previews import image_format
from asyncflow.page.answers import AskedWrongly
from asyncflow.page.task_detail import artifact_ref
from asyncflow.values import Encoding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncflow.client.run_files import RunRecord
    from asyncflow.store.artifacts import ArtifactReader
    from asyncflow.values import ArtifactRef

_PIECE_BYTES: Final = 1 << 20
_MOST_SHOWN_BYTES: Final = 32 << 20
_ENDINGS: Final = {Encoding.PICKLE: "pickle", Encoding.BYTES: "bin"}


@dataclass(frozen=True, slots=True)
class RawArtifact:
    """One artifact, to be sent."""

    reader: ArtifactReader
    ref: ArtifactRef
    pathspec: str

    @classmethod
    def find(cls, record: RunRecord, step: str, task_id: str, name: str) -> Self:
        """The artifact that an address names.

        Raises:
            NotFoundError: There is none.
        """
        attempts, ref = artifact_ref(record, step, task_id, name)
        return cls(record.place.artifacts, ref, f"{attempts.pathspec}/{name}")

    async def response(self, read: Any, *, show: bool) -> Response:
        """Its bytes; with `show` a picture as a picture.

        Raises:
            ArtifactMissingError: The file that holds it is gone.
        """
        first = await read(
            lambda: self._piece(0)
        )  # what is missing is told before anything is sent
        if show:
            return await self._picture(read, first)
        parts = self.pathspec.split("/")
        ending = _ENDINGS.get(Encoding(self.ref.encoding), "asyncflow")
        name = quote("-".join([*parts[:2], *parts[3:]]) + f".{ending}")
        headers = {
            "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
            "Content-Length": str(self.ref.size),
            "Content-Security-Policy": "sandbox; default-src 'none'",
        }
        pieces = self._pieces(read, first)
        return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)

    async def _picture(self, read: Any, first: bytes) -> Response:
        kind = image_format(first)
        if self.ref.encoding != Encoding.BYTES or kind is None or self.ref.size > _MOST_SHOWN_BYTES:
            raise AskedWrongly(400, f"{self.pathspec} is no picture that can be shown")
        data = await read(lambda: bytes(self.reader.load_bytes(self.ref, self.pathspec)))
        policy = "sandbox; default-src 'none'"
        headers = {"Content-Security-Policy": policy}
        return Response(data, media_type=f"image/{kind}", headers=headers)

    def _piece(self, at: int) -> bytes:
        size = min(_PIECE_BYTES, self.ref.size - at)
        return self.reader.read_range(self.ref, at, size, self.pathspec)

    async def _pieces(self, read: Any, first: bytes) -> AsyncIterator[bytes]:
        """The bytes; if they are not those that were written, the last piece never comes."""
        hasher, piece, at = blake3(), first, 0
        while True:
            hasher.update(piece)
            at += len(piece)
            if at >= self.ref.size:
                break
            yield piece
            begin = at
            piece = await read(lambda begin=begin: self._piece(begin))
        if self.ref.digest and hasher.digest() != self.ref.digest:
            # raises an error that says so
            await read(lambda: self.reader.load_bytes(self.ref, self.pathspec))
        yield piece
