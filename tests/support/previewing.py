"""Previews of values and of bytes, without a store."""

from __future__ import annotations

from asyncflow.client.previews import PreviewLimits, preview_of
from asyncflow.codec import encode
from asyncflow.values import ArtifactRef, Encoding

LIMITS = PreviewLimits(characters=300, items=50, rows=3, operations=2_000, seconds=30)


class InMemoryReader:
    """Gives parts of some bytes, and counts what is read."""

    def __init__(self, data):
        self.data, self.read = data, 0

    def read_range(self, _ref, offset, size, _name=""):
        self.read += size
        return self.data[offset : offset + size]


def preview(data, encoding=Encoding.PICKLE, kind="", limits=LIMITS, reader=None):
    """The preview of some stored bytes."""
    ref = ArtifactRef(0, int(encoding), kind, len(data), b"", "", 0, b"")
    return preview_of(reader or InMemoryReader(data), ref, "Flow/1/start/1/x", limits)[0]


def of(value, limits=LIMITS):
    """The preview of a value, as it is stored."""
    encoded = encode(value)
    data = b"".join(map(bytes, encoded.chunks))
    return preview(data, encoded.encoding, encoded.type_name, limits)
