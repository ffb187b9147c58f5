"""Pickles values with as few copies as possible, and names the member that cannot be pickled."""

from __future__ import annotations

import io
import pickle
import sys
from contextlib import suppress
from functools import cache
from typing import Any, Final

from asyncflow._support.safe_text import class_name, is_stop, text_of
from asyncflow.codec.classes import CODE_TYPES, reduce_code
from asyncflow.errors import ArtifactPickleError

Chunk = bytes | bytearray | memoryview
"""A piece of stored bytes, one item per byte."""

PROTOCOL: Final = 5

OUT_OF_BAND_BYTES: Final = 4096
"""Copying a smaller buffer into the pickle is faster than aligning, listing and mapping it."""


class _ChunkSink:
    """The file that a C pickler writes to: large `bytes` arrive uncopied, the rest in pieces.

    `write` is Python code on purpose. A C pickler holds the interpreter's lock throughout, and only
    a call of Python code lets another thread have it. A million objects take 530 ms, of which 80 ms
    remain without such a call, while the pickler grows its memo table.
    """

    __slots__ = ("chunks",)

    def __init__(self, chunks: list[Chunk]) -> None:
        self.chunks = chunks

    def write(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)


class _Nowhere:
    """Discards a pickle."""

    def write(self, chunk: Chunk) -> None:
        pass


class _Pickler(pickle.Pickler):
    """Plain pickle, with `reduce_code` for the classes and functions of the flow's own file."""

    code: dict[bytes, bytes] | None = None
    is_plain = True

    def reducer_override(self, value: Any) -> Any:
        self.is_plain = (
            False  # not called for numbers, texts, lists, dicts and other built-in values
        )
        if isinstance(value, CODE_TYPES):
            return reduce_code(value, self.code)
        return _reduce_array(value)


def _reduce_array(value: Any) -> Any:
    """Pickle a pandas array, such as one of dates, without its cache.

    Reading an array fills its cache, so a frame would count as changed after it was read.
    """
    arrays = sys.modules.get("pandas._libs.arrays")
    if arrays is None or not isinstance(value, arrays.NDArrayBacked):
        return NotImplemented
    reduced = value.__reduce_ex__(PROTOCOL)
    match reduced:
        case (make, arguments, (dtype, array, dict(attributes))) if "_cache" in attributes:
            attributes = {name: kept for name, kept in attributes.items() if name != "_cache"}
            state = (dtype, array, attributes) if attributes else (dtype, array)
            return make, arguments, state
    return reduced


def _standard_streams() -> tuple[object, ...]:
    return sys.stdout, sys.stderr


@cache
def _cloud_pickler() -> Any:
    import cloudpickle

    class CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        """cloudpickle, with `reduce_code` for the classes and functions of the flow's own file."""

        code: dict[bytes, bytes] | None = None
        is_plain = False

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, CODE_TYPES):
                try:
                    reduced = reduce_code(value, self.code)
                except pickle.PicklingError:
                    reduced = NotImplemented
                if reduced is not NotImplemented:
                    return reduced
            elif type(value) is io.TextIOWrapper and value not in _standard_streams():
                # cloudpickle would store the file's content and restore another kind of file.
                message = f"cannot pickle {type_name(value)!r} object"
                raise TypeError(message)
            reduced = _reduce_array(value)
            return super().reducer_override(value) if reduced is NotImplemented else reduced

    return CloudPickler


def dump(
    value: object, name: str = "", code: dict[bytes, bytes] | None = None
) -> tuple[list[Chunk], list[memoryview], bool]:
    """Pickle a value: the pickle in pieces, its large buffers, and whether it names no class.

    Large `bytes` and all buffers share the value's memory. If `code` is given, it receives the code
    of the flow file's classes, which the pickle then does not contain.

    Raises:
        ArtifactPickleError: cloudpickle cannot pickle it either; the message names the member.
    """
    try:
        with suppress(Exception):
            return _dump_with(_Pickler, value, code)
        return _dump_with(_cloud_pickler(), value, code)
    except MemoryError:
        raise
    except BaseException as error:  # a `__reduce__` may even call sys.exit
        if is_stop(error):
            raise
        raise _explain(value, name, error) from error


def _dump_with(
    pickler: Any, value: object, code: dict[bytes, bytes] | None
) -> tuple[list[Chunk], list[memoryview], bool]:
    chunks: list[Chunk] = []
    buffers: list[memoryview] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND_BYTES:
            return True
        buffers.append(raw)
        return False

    writing = pickler(_ChunkSink(chunks), PROTOCOL, buffer_callback=in_band)
    if code is not None:
        writing.code = code
    writing.dump(value)
    return chunks, buffers, writing.is_plain


def can_pickle(value: object) -> bool:
    """Whether a value can be stored; the pickle is discarded."""
    for pickler in (_Pickler, _cloud_pickler()):
        try:
            pickler(_Nowhere(), PROTOCOL, buffer_callback=bool).dump(value)
        except BaseException as error:  # a value's own methods may raise anything
            if is_stop(error):
                raise
            continue
        return True
    return False


def type_name(value: object) -> str:
    """A value's type as text: `list`, `numpy.ndarray`."""
    return class_name(type(value))


def _explain(value: object, name: str, error: BaseException) -> ArtifactPickleError:
    from asyncflow.codec.unpicklable import USING, find_culprit

    root = f"self.{name}" if name else "the value"
    kind = type_name(value)
    what = f"artifact {name!r} of type {kind}" if name else f"a value of type {kind}"
    if isinstance(value, type):
        root, what = value.__name__, f"the class {value.__qualname__}"
    path, culprit = find_culprit(value, root, can_pickle)
    where = f"{path} is a {type_name(culprit)}: " if culprit is not value else ""
    advice = "Keep it out of `self`, or give its class a `__getstate__` that leaves it out"
    if USING in path:
        advice = "Make it where it is used, or put the code into a file: each worker imports that"
    elif isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        advice = "It is nested too deeply: keep it as a flat list, such as one of nodes"
    elif isinstance(culprit, io.IOBase):
        advice = "Keep the file's name, or what you have read from it"
    why = f"{where}{class_name(type(error)).rpartition('.')[2]}: {text_of(error)}"
    message = f"{what} cannot be pickled: {why}. {advice}"
    return ArtifactPickleError(message, artifact=name)
