"""What `S3` takes and gives: objects, ranges of them, and what is put."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

USER_METADATA: Final = "metaflow-user-attributes"
"""The header with a user's own metadata as JSON. Metaflow reads and writes the same one."""


class S3GetObject(NamedTuple):
    """A range of bytes to get: `length` bytes of `key` from `offset` on.

    A `length` of None means all that follow, and a negative one so many bytes at the end.
    """

    key: str
    offset: int | None
    length: int | None


class S3PutObject(NamedTuple):
    """An object to put: the `value` for `put_many`, or the `path` of a local file for `put_files`.

    `metadata` is a dict that JSON can hold. An `encryption` here has no effect, as in Metaflow:
    give it to `S3`.
    """

    key: str
    value: Any = None
    path: str | None = None
    content_type: str | None = None
    encryption: str | None = None
    metadata: dict[str, str] | None = None


class RangeInfo(NamedTuple):
    """Which part of an object was downloaded, in bytes."""

    total_size: int
    """The size of the whole object in S3."""
    request_offset: int = 0
    request_length: int = -1
    """How many bytes were downloaded."""


class S3Object:
    """An object or a path in S3, with a local copy if it was downloaded.

    The methods of `S3` return these.
    """

    __slots__ = (
        "_content_type",
        "_encryption",
        "_key",
        "_last_modified",
        "_metadata",
        "_path",
        "_prefix",
        "_range_info",
        "_size",
        "_url",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - as in Metaflow
        self,
        prefix: str | None,
        url: str,
        path: str | None,
        size: int | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        range_info: RangeInfo | None = None,
        last_modified: int | None = None,
        encryption: str | None = None,
    ) -> None:
        self._url, self._path = url, path
        self._size = Path(path).stat().st_size if path else size
        self._content_type, self._encryption = content_type, encryption
        self._last_modified = last_modified
        self._metadata: dict[str, str] | None = None
        if metadata is not None and USER_METADATA in metadata:
            self._metadata = json.loads(metadata[USER_METADATA])
        self._range_info = range_info
        if prefix is None or prefix == url:
            self._key, self._prefix = url, None
        else:
            self._key, self._prefix = url[len(prefix.rstrip("/")) + 1 :].rstrip("/"), prefix

    @property
    def exists(self) -> bool:
        """Whether there is an object with this key; a path on the way to others is none."""
        return self._size is not None

    @property
    def downloaded(self) -> bool:
        """Whether there is a local copy, so that `path`, `blob` and `text` are there."""
        return bool(self._path)

    @property
    def url(self) -> str:
        """Its address: `s3://BUCKET/KEY`."""
        return self._url

    @property
    def prefix(self) -> str | None:
        """The address that `key` is relative to; None if `key` is the whole address."""
        return self._prefix

    @property
    def key(self) -> str:
        """What it was asked for by: the part of its address after the prefix, or all of it."""
        return self._key

    @property
    def path(self) -> str | None:
        """The local file with its bytes, which is deleted when its `S3` is closed; None without."""
        return self._path

    @property
    def blob(self) -> bytes | None:
        """Its bytes; None if it was not downloaded."""
        return Path(self._path).read_bytes() if self._path else None

    @property
    def text(self) -> str | None:
        """Its bytes as UTF-8, with � for what is not; None if it was not downloaded."""
        blob = self.blob
        return None if blob is None else blob.decode(errors="replace")

    @property
    def size(self) -> int | None:
        """How many bytes it has, or of a range how many were downloaded; None if it is missing."""
        return self._size

    @property
    def has_info(self) -> bool:
        """Whether its content type or metadata were asked for, and are known."""
        known = (self._content_type, self._metadata, self._range_info, self._encryption)
        return any(each is not None for each in known)

    @property
    def metadata(self) -> dict[str, str] | None:
        """The metadata that was put with it; None if there is none."""
        return self._metadata

    @property
    def content_type(self) -> str | None:
        """Its content type, if it is known."""
        return self._content_type

    @property
    def encryption(self) -> str | None:
        """None: obstore does not tell how an object is encrypted."""
        return self._encryption

    @property
    def range_info(self) -> RangeInfo | None:
        """Which part of it was downloaded, if its info was asked for."""
        return self._range_info

    @property
    def last_modified(self) -> int | None:
        """When it was last changed, in seconds since 1970, if its info was asked for."""
        return self._last_modified

    def __repr__(self) -> str:
        if self._size is None:
            return f"<S3Object {self._url} (object does not exist)>"
        return f"<S3Object {self._url} ({self._size} bytes, {'local' if self._path else 'in S3'})>"
