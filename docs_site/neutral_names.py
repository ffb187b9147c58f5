"""Takes the names of the machine that makes the pictures out of what a browser shows."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.support.browser import Browser

_NAMES: Final = {tempfile.gettempdir(): "/home/ada", os.uname().nodename: "studio"}

_REPLACE: Final = """
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      let text = walker.currentNode.data;
      for (const [from, to] of Object.entries(arguments[0])) {
        text = text.replace(new RegExp(`(^|[\\\\s"'])${from}(?=[\\\\s"'/.,]|$)`, "g"), `$1${to}`);
      }
      if (text !== walker.currentNode.data) walker.currentNode.data = text;
    }
"""


def make_neutral(browser: Browser) -> None:
    """Show other names for the machine and its folder of temporary files, as whole words."""
    browser.run(_REPLACE, _NAMES)
