"""What `make docs` adds to the built pages, so that they can be opened as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pygments.formatters import HtmlFormatter

LAYOUT = """
.rst-content .highlight > pre, .rst-content .highlight > pre > code { border: 0; margin: 0 }
.rst-content .wy-table-responsive table td { white-space: normal }
.rst-content .wy-table-responsive table td:first-child code { white-space: nowrap }
.rst-content .highlight > .filename { display: block; padding: .5em 1em 0; font-size: 85% }
"""


def on_post_build(config: dict[str, Any]) -> None:
    """Write the colours of code, and the index of the search as a script."""
    site = Path(config["site_dir"])
    colours = HtmlFormatter(style="default").get_style_defs(".highlight")
    (site / "css" / "code.css").write_text(colours + LAYOUT, encoding="utf-8")
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    script = f"window.searchIndex = {index}\n"
    (site / "search" / "search_index.js").write_text(script, encoding="utf-8")
