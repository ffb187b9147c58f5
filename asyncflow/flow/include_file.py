"""`IncludeFile`: a parameter whose value is the content of a file when a run starts."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar, cast, overload

from asyncflow.errors import ParameterError
from asyncflow.flow.parameters import Parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_STREAMED_BYTES: Final = 1 << 20
"""From this size on a file is stored without being held in memory."""
_PIECE_BYTES: Final = 1 << 20
_SHOWN_BYTES: Final = 1 << 10  # of a file, in the list of a run's parameters


class IncludeFile(Parameter[T]):
    """A parameter that is given as a path, and whose value is the content of that file.

    The file is read when the run starts. Its content is stored with the run like any value; a
    large file is stored piece by piece, and never held in memory.

    Args:
        name: The name, as in `Parameter`.
        default: A path, or a function that returns one when the run starts.
        required: Whether each run must be given a path.
        is_text: Whether the value is a `str`; else it is `bytes`.
        encoding: The encoding of the text; UTF-8 if left out.
        help: The text that `--help` shows.
        parser: A function that makes the value of the content, or its name, as in `"json.loads"`.
            It is called when the run starts, to see that the content is right, and in each task
            that reads the value; the content is what is stored.
        show_default: Whether `--help` shows the default.
    """

    __slots__ = ("_encoding", "_is_text", "_parser")

    @overload
    def __init__(
        self: IncludeFile[str],
        name: str | None = None,
        default: Any = None,
        *,
        required: bool = False,
        is_text: Literal[True] = True,
        encoding: str | None = None,
        help: str | None = None,
        show_default: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: IncludeFile[bytes],
        name: str | None = None,
        default: Any = None,
        *,
        required: bool = False,
        is_text: Literal[False],
        encoding: str | None = None,
        help: str | None = None,
        show_default: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: IncludeFile[Any],
        name: str | None = None,
        default: Any = None,
        *,
        required: bool = False,
        is_text: bool = True,
        encoding: str | None = None,
        help: str | None = None,
        parser: str | Callable[..., Any],
        show_default: bool = True,
    ) -> None: ...
    def __init__(
        self,
        name: str | None = None,
        default: Any = None,
        *,
        required: bool = False,
        is_text: bool = True,
        encoding: str | None = None,
        help: str | None = None,  # noqa: A002 - Metaflow's name for it
        parser: str | Callable[..., Any] | None = None,
        show_default: bool = True,
    ) -> None:
        """Describe a file; a run fails to start if the file does not exist."""
        options: dict[str, Any] = {
            "type": str,
            "required": required,
            "help": help,
            "show_default": show_default,
        }
        super().__init__(name, default, **options)
        self._is_text = is_text
        self._encoding = encoding or "utf-8"
        self._parser = parser

    @property
    def type_name(self) -> str:
        """The kind of value to give: a `path`."""
        return "path"

    def check_default(self) -> None:
        """Check that the default is a path; the file need not exist."""
        self._path(self.default)

    def _path(self, value: object) -> str:
        if not isinstance(value, str | os.PathLike):
            raise self._refusal(value)
        return os.path.expanduser(os.fsdecode(value))  # noqa: PTH111 - pathlib loads slowly

    def __get__(self, instance: object, owner: type[Any]) -> Any:
        if instance is None or self._parser is None:
            return super().__get__(instance, owner)
        kept, values = f"_asyncflow_parsed_{self.attribute}", vars(instance)
        if kept not in values:
            values[kept] = self.as_seen(super().__get__(instance, owner))
        return values[kept]

    def as_seen(self, stored: Any) -> Any:
        """The content, or what the parser makes of it.

        Raises:
            ParameterError: The parser fails.
        """
        if self._parser is None or stored is None:
            return stored
        from asyncflow.flow.config_parsers import named_function

        try:
            return named_function(self._parser)(stored)
        except Exception as error:
            message = (
                f"the parser of parameter {self.name!r} refuses the content of the file: "
                f"{type(error).__name__}: {error}"
            )
            raise ParameterError(message, parameter=self.name) from error

    def value_to_store(self, value: object) -> Any:
        """The content of the file at a path; that of a large one as a `FileStream`.

        Raises:
            ParameterError: The file cannot be read, or the parser refuses its content.
        """
        if value is None and not self.required and self.default is None:
            return None
        stream = self._stream(self._path(value))
        if stream is None or self._parser is not None:
            content = self.convert(value)
            self.as_seen(content)  # it is refused now rather than in a step
            return content if stream is None else stream
        return stream

    def _stream(self, path: str) -> FileStream | None:
        """The file at a path, if it is large and its bytes are stored as they are."""
        import codecs

        try:
            status = os.stat(path)  # noqa: PTH116 - pathlib loads slowly
            as_they_are = not self._is_text or codecs.lookup(self._encoding).name == "utf-8"
        except (OSError, ValueError, LookupError):  # reading it will say why
            return None
        large = stat.S_ISREG(status.st_mode) and status.st_size >= _STREAMED_BYTES
        return FileStream(self, path, status.st_size) if large and as_they_are else None

    @property
    def is_text(self) -> bool:
        """Whether the content is a `str`; else it is `bytes`."""
        return self._is_text

    def _convert_one(self, value: object) -> Any:
        path = self._path(value)
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - pathlib loads slowly
                data = file.read()
            return data.decode(self._encoding) if self._is_text else data
        except (OSError, ValueError, LookupError) as error:
            self.refuse(path, error)

    def refuse(self, path: str, error: Exception) -> NoReturn:
        """Say why a file cannot be read.

        Raises:
            ParameterError: Always.
        """
        match error:
            case OSError():
                why = f"cannot read {path}: {error.strerror}"
            case UnicodeDecodeError():
                why = (
                    f"{path} is not text in {self._encoding}: give another encoding, or "
                    "is_text=False"
                )
            case ValueError():
                why = f"{path!r} cannot be the name of a file"
            case _:
                why = f"there is no encoding {self._encoding!r}"
        message = f"the file of parameter {self.name!r}: {why}"
        raise ParameterError(message, parameter=self.name) from None


class FileStream:
    """The content of a large file, which is read while it is stored."""

    def __init__(self, parameter: IncludeFile[Any], path: str, size: int) -> None:
        self._parameter, self._path = parameter, path
        self.size = size
        """How many bytes it has."""
        self.is_text = parameter.is_text
        """Whether it is a `str`, whose bytes in UTF-8 these are; else it is `bytes`."""

    def pieces(self) -> Iterator[bytes]:
        """The bytes, about a megabyte at a time.

        Raises:
            ParameterError: The file cannot be read, is not text, or has changed meanwhile.
        """
        import codecs

        decoder = codecs.getincrementaldecoder("utf-8")() if self.is_text else None
        left = self.size
        try:
            with open(self._path, "rb", buffering=0) as file:  # noqa: PTH123 - pathlib loads slowly
                while piece := file.read(min(_PIECE_BYTES, left + 1)):
                    if decoder is not None:
                        decoder.decode(piece)
                    left -= len(piece)
                    if left < 0:
                        break
                    yield piece
            if decoder is not None:
                decoder.decode(b"", final=True)
        except (OSError, ValueError) as error:
            self._parameter.refuse(self._path, error)
        if left:
            message = f"{self._path} has changed while it was read: start the run again"
            raise ParameterError(message, parameter=self._parameter.name)

    def __str__(self) -> str:
        """How it begins; a run shows it among its parameters."""
        try:
            with open(self._path, "rb", buffering=0) as file:  # noqa: PTH123 - pathlib loads slowly
                head = cast("bytes", file.read(_SHOWN_BYTES))
        except OSError:
            return ""
        return head.decode(errors="replace") if self.is_text else str(head)
