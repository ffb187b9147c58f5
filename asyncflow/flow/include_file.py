"""`IncludeFile`: a parameter whose value is what a file holds when a run is started."""

from __future__ import annotations

import os
from typing import Any, Literal, TypeVar, overload

from asyncflow.errors import ParameterError
from asyncflow.flow.parameters import Parameter

T = TypeVar("T")


class IncludeFile(Parameter[T]):
    """A file that a run is started with: given as a path, its value is what the file holds.

    It is read once, when the run starts, and kept with the run like any other value.

    Args:
        name: As of a `Parameter`.
        default: A path, or a function that gives one when the run starts.
        required: Whether a run cannot be started without it.
        is_text: Whether the value is a `str`; else `bytes`.
        encoding: That of the text; UTF-8 where left out.
        help: What `--help` says of it.
        show_default: Whether `--help` tells the default.
    """

    __slots__ = ("_encoding", "_is_text")

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
    def __init__(
        self,
        name: str | None = None,
        default: Any = None,
        *,
        required: bool = False,
        is_text: bool = True,
        encoding: str | None = None,
        help: str | None = None,  # noqa: A002 - Metaflow's name for it
        show_default: bool = True,
    ) -> None:
        """Describe a file; whether it is there is seen when a run is started."""
        options: dict[str, Any] = {
            "type": str,
            "required": required,
            "help": help,
            "show_default": show_default,
        }
        super().__init__(name, default, **options)
        self._is_text = is_text
        self._encoding = encoding or "utf-8"

    @property
    def type_name(self) -> str:
        """What is to be given: a `path`."""
        return "path"

    def check_default(self) -> None:
        """See that the default is a path; the file need not be there."""
        self._path(self.default)

    def _path(self, value: object) -> str:
        if not isinstance(value, str | os.PathLike):
            raise self._refusal(value)
        return os.path.expanduser(os.fsdecode(value))  # noqa: PTH111 - pathlib loads slowly

    def _convert_one(self, value: object) -> Any:
        path = self._path(value)
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - the same
                data = file.read()
            return data.decode(self._encoding) if self._is_text else data
        except OSError as error:
            why = f"cannot read {path}: {error.strerror}"
        except UnicodeDecodeError:
            why = f"{path} is no text in {self._encoding}: give another encoding, or is_text=False"
        except ValueError:
            why = f"{path!r} cannot be the name of a file"
        except LookupError:
            why = f"there is no encoding {self._encoding!r}"
        message = f"the file of parameter {self.name!r}: {why}"
        raise ParameterError(message, parameter=self.name)
