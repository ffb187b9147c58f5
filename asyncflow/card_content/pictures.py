"""Tables and images."""

from __future__ import annotations

import base64
import io
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self

from asyncflow._support.safe_text import class_name
from asyncflow.card_content.component import (
    CardComponent,
    Images,
    Part,
    error_part,
    optional,
    part_of,
    plain_number,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_ROWS: Final = 1_000
"""So many rows of a table are shown, and told how many there are."""
MOST_COLUMNS: Final = 100
_MOST_CELLS: Final = 20_000
_CELL_BYTES: Final = 2 << 10
_INLINE_BYTES: Final = 512  # a smaller image is not worth a name of its own
_KINDS: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"<svg", "image/svg+xml"),
    (b"<?xml", "image/svg+xml"),
)
"""The first bytes of images."""


class Table(CardComponent):
    """Rows and columns.

    Args:
        data: The rows, each a list of numbers, text, or components.
        headers: The names of the columns.
        disable_updates: Metaflow's; without effect.
    """

    def __init__(
        self,
        data: Iterable[Sequence[Any]] | None = None,
        headers: Sequence[object] | None = None,
        disable_updates: bool = False,  # noqa: FBT001, FBT002, ARG002 - Metaflow's signature
    ) -> None:
        self._data = data
        self._headers: Sequence[object] | None = headers
        self._rows: int | None = None  # how many there are in all, if these are not all
        self._columns: int | None = None

    @classmethod
    def from_dataframe(cls, dataframe: Any = None, truncate: bool = True) -> Self:  # noqa: FBT001, FBT002 - Metaflow's signature
        """A table of a data frame of pandas or polars, or of a table of Arrow.

        Args:
            dataframe: The data frame.
            truncate: Whether to show the first 100 rows of a longer one, or else the first 1,000.
        """
        most = 100 if truncate else MOST_ROWS
        table = cls()
        try:
            columns, rows, table._rows, table._columns = _frame(dataframe, most)
        except BaseException as error:  # noqa: BLE001 - whatever the frame's methods do: it is shown
            from asyncflow.card_content.components import Error

            table._data = [[Error(error, f"{class_name(type(dataframe))} is no data frame")]]
            return table
        table._headers, table._data = columns, rows
        return table

    def update(self, data: Iterable[Sequence[Any]] | None = None) -> None:
        """Replace the rows."""
        if data is not None:
            self._data, self._rows = data, None

    def _part(self, images: Images, depth: int) -> Part:
        rows = list(islice(self._data or (), MOST_ROWS + 1))
        total = self._rows
        if total is None and len(rows) > MOST_ROWS:
            total = len(self._data) if hasattr(self._data, "__len__") else len(rows)  # type: ignore[arg-type] # just asked
        shown: list[list[Any]] = []
        cells = 0
        for row in rows[:MOST_ROWS]:
            line = [_cell(each, images, depth) for each in islice(row, MOST_COLUMNS)]
            cells += len(line)
            if cells > _MOST_CELLS:
                total = total or len(rows)
                break
            shown.append(line)
        headers = [text(each, _CELL_BYTES) for each in islice(self._headers or (), MOST_COLUMNS)]
        total = total if total is not None and total > len(shown) else len(shown)
        return {
            "kind": "table",
            "headers": headers,
            "rows": shown,
            "total": total,
            "columns": self._columns or max([len(headers), *map(len, shown)]),
        }


def _cell(value: Any, images: Images, depth: int) -> Any:
    """A cell: a number, text, or the part of a component."""
    if isinstance(value, CardComponent):
        return part_of(value, images, depth + 1)
    if isinstance(value, int | float) or hasattr(value, "dtype"):
        return plain_number(value)
    return text(value, _CELL_BYTES)


def _frame(frame: Any, most: int) -> tuple[list[str], list[list[Any]], int, int]:
    """Headers, first rows, number of rows and number of columns of a data frame."""
    if hasattr(frame, "iloc"):  # pandas
        total, width = frame.shape
        part = frame.iloc[:most, :MOST_COLUMNS]
        names = [_joined(each) for each in part.columns]
        rows = [list(each) for each in part.itertuples(index=False, name=None)]
        index = frame.index
        if not (type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1):
            names.insert(0, "" if index.name is None else str(index.name))
            rows = [[_joined(key), *row] for key, row in zip(part.index, rows, strict=True)]
        return names, rows, total, width
    if hasattr(frame, "column_names"):  # Arrow
        part = frame.slice(0, most)
        names = [str(each) for each in frame.column_names[:MOST_COLUMNS]]
        columns = [part.column(number).to_pylist() for number in range(len(names))]
        return names, [list(row) for row in zip(*columns, strict=True)], *frame.shape
    total, width = frame.shape  # polars
    part = frame[:most, :MOST_COLUMNS]
    return [str(each) for each in part.columns], [list(row) for row in part.rows()], total, width


def _joined(key: Any) -> Any:
    """A key of an index of several levels as one text."""
    return " · ".join(map(str, key)) if isinstance(key, tuple) else key


class Image(CardComponent):
    """An image; it is stored with the card.

    Args:
        src: The bytes of a PNG, JPEG, GIF, WebP or SVG, or a `data:image/…;base64,…` text.
        label: What stands below it.
        disable_updates: Metaflow's: whether `update` does nothing.
    """

    def __init__(
        self,
        src: bytes | str | None = None,
        label: str | None = None,
        disable_updates: bool = False,  # noqa: FBT001, FBT002 - Metaflow's signature
    ) -> None:
        self._src: Any = src
        self._label, self._is_fixed = label, disable_updates
        self._error: BaseException | None = None

    @classmethod
    def from_matplotlib(
        cls,
        plot: Any,
        label: str | None = None,
        disable_updates: bool = False,  # noqa: FBT001, FBT002 - Metaflow's signature
    ) -> Self:
        """An image of a figure, or of the figure of some axes, as it is now.

        The figure is closed then, so that Matplotlib does not keep it.
        """
        return cls._made(_png_of_plot, plot, label, disable_updates)

    @classmethod
    def from_pil_image(
        cls,
        pilimage: Any,
        label: str | None = None,
        disable_updates: bool = False,  # noqa: FBT001, FBT002 - Metaflow's signature
    ) -> Self:
        """An image of one of PIL's, as it is now."""
        return cls._made(_png_of_pil, pilimage, label, disable_updates)

    @classmethod
    def _made(cls, convert: Any, source: Any, label: str | None, is_fixed: bool) -> Self:  # noqa: FBT001 - called by two methods beside it
        image = cls(None, label, is_fixed)
        image._convert(convert, source)
        return image

    def _convert(self, convert: Any, source: Any) -> None:
        try:
            self._src, self._error = convert(source), None
        except BaseException as error:  # noqa: BLE001 - whatever their methods do: it is shown
            self._error = error

    def update(self, image: Any, label: str | None = None) -> None:
        """Replace the image by other bytes, a figure, or an image of PIL's."""
        if self._is_fixed:
            return
        if label is not None:
            self._label = label
        if isinstance(image, bytes | str):
            self._src, self._error = image, None
        elif hasattr(image, "save"):
            self._convert(_png_of_pil, image)
        else:
            self._convert(_png_of_plot, image)

    def _part(self, images: Images, depth: int) -> Part:  # noqa: ARG002 - the signature is the base class's
        if self._error is not None:
            raise self._error
        if self._src is None:
            return error_part("Image has no bytes")
        data = _bytes_of(self._src)
        mime = _mime_of(data)
        if mime is None:
            return error_part(
                "Image cannot be shown",
                "These bytes are no PNG, JPEG, GIF, WebP or SVG. For a figure of Matplotlib there "
                "is Image.from_matplotlib, for an image of PIL's Image.from_pil_image.",
            )
        shown: bytes | str = data if len(data) <= _INLINE_BYTES else images.add(data)
        return {"kind": "image", "mime": mime, "image": shown, "label": optional(self._label)}


def _bytes_of(src: Any) -> bytes:
    if isinstance(src, str):
        if not src.startswith("data:image/") or ";base64," not in src[:200]:
            message = "the text of an image begins with data:image/…;base64,"
            raise ValueError(message)
        return base64.b64decode(src.partition(",")[2])
    if isinstance(src, bytes | bytearray | memoryview):
        return bytes(src)
    message = f"Image takes bytes, not {class_name(type(src))}"
    raise TypeError(message)


def _mime_of(data: bytes) -> str | None:
    """The kind of an image by its first bytes; None if these are no image."""
    head = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n")
    for start, mime in _KINDS:
        if head.startswith(start):
            return mime
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return None


def _png_of_plot(plot: Any) -> bytes:
    figure = plot
    if not hasattr(plot, "savefig"):
        get_figure = getattr(plot, "get_figure", None)
        if get_figure is None:
            message = f"{class_name(type(plot))} is no figure of Matplotlib, nor axes of one"
            raise TypeError(message)
        figure = get_figure()
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    pyplot = sys.modules.get("matplotlib.pyplot")  # else it keeps no figure
    if pyplot is not None:
        pyplot.close(figure)
    return file.getvalue()


def _png_of_pil(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
