"""The notebook in which this process runs, and the names of cells.

The code of a cell has a made-up file name, such as `/tmp/ipykernel_12/34.py`. IPython calls it
`Cell In[3]` where it shows a traceback, and so do we. A worker knows that name from the program:
`remember_cells`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_REMEMBERED: Final[dict[str, str]] = {}


def shell() -> Any:
    """IPython's shell in this process; None if there is none."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def cell_name(file: str) -> str:
    """What the cell with code of this file is called; "" if it is no cell, or nobody knows."""
    name = getattr(getattr(shell(), "compile", None), "format_code_name", None)
    found = name(file) if name is not None else None
    return " ".join(found) if found else _REMEMBERED.get(file, "")


def shown_file(file: str) -> str:
    """How a file is named to the user: a cell of a notebook as such."""
    return cell_name(file) or file


def remember_cells(names: Mapping[str, str]) -> None:
    """Know the names of cells of another process, by file."""
    _REMEMBERED.update(names)
