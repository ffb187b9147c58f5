"""`IncludeFile`: a parameter whose value is the content of a file when a run starts."""

from __future__ import annotations

import os
from typing import Any, Literal, TypeVar, overload

from asyncflow.errors import ParameterError
from asyncflow.flow.parameters import Parameter

T = TypeVar("T")


class IncludeFile(Parameter[T]):
    """A parameter that is given as a path, and whose value is the content of that file.

    The file is read once, when the run starts. Its content is stored with the run like any value.

    Args:
        name: The name, as in `Parameter`.
        default: A path, or a function that returns one when the run starts.
        required: Whether each run must be given a path.
        is_text: Whether the value is a `str`; else it is `bytes`.
        encoding: The encoding of the text; UTF-8 if left out.
        help: The text that `--help` shows.
        show_default: Whether `--help` shows the default.
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

    def _convert_one(self, value: object) -> Any:
        path = self._path(value)
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - the same
                data = file.read()
            return data.decode(self._encoding) if self._is_text else data
        except OSError as error:
            why = f"cannot read {path}: {error.strerror}"
        except UnicodeDecodeError:
            why = f"{path} is not text in {self._encoding}: give another encoding, or is_text=False"
        except ValueError:
            why = f"{path!r} cannot be the name of a file"
        except LookupError:
            why = f"there is no encoding {self._encoding!r}"
        message = f"the file of parameter {self.name!r}: {why}"
        raise ParameterError(message, parameter=self.name)
