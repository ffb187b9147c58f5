"""A card as one HTML file, which needs nothing else: no network, no other file.

The script and the styles are those that a page uses as well. The file has a policy that allows this
script, these styles and images within the file, and nothing from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from asyncflow.card_content.drawing import uses_vega

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_VEGA_FILES: Final = ("vendor/vega.min.js", "vendor/vega-lite.min.js")
_INTERPRETER: Final = "vendor/vega-interpreter.js"
_IMPORT: Final = re.compile(r"^import (\{[^}]*\}) from 'vega-util';$", re.MULTILINE)
_EXPORT: Final = re.compile(r"^export \{ (\w+) as (\w+) \};$", re.MULTILINE)
HTML_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "style-src 'unsafe-inline' data:; img-src data: blob:; font-src data:; media-src data: blob:; "
    "form-action 'none'; base-uri 'none'"
)
"""The policy for HTML that a step has made: its scripts run, and nothing is loaded or sent. It has
to be shown in a sandbox without `allow-same-origin`."""

_DOCTYPE: Final = re.compile(r"\s*<!DOCTYPE[^>]*>", re.IGNORECASE)
_COLOURS: Final = re.compile(r"colou?r|background|stylesheet|\bfill\b|\bstroke\b", re.IGNORECASE)
_PAGE_COLOURS: Final = (
    "<style>:where(html) { color-scheme: light dark; color: #1b2129; } "
    "@media (prefers-color-scheme: dark) { :where(html) { color: #e4e8ed; } }</style>"
)
# Content may be higher than its root element, which a style can bind to the frame. But what is
# always higher than the frame would grow for ever: what the frame's own growth causes counts.
_TELL_HEIGHT: Final = """(() => {
  const root = document.documentElement;
  let told = 0, caused = false, growths = 0, width = innerWidth;
  const tell = () => {
    let height = Math.ceil(root.getBoundingClientRect().height);
    const whole = root.scrollHeight;
    if (whole > Math.max(innerHeight, height)) height = whole;
    if (height === 0 || height === told || (caused && height > told && growths++ > 2)) return;
    told = height;
    parent.postMessage({ asyncflow: "height", height }, "*");
  };
  new ResizeObserver(tell).observe(root);
  addEventListener("load", tell);
  addEventListener("resize", () => {
    if (innerWidth !== width) {
      width = innerWidth;
      growths = 0;
    }
    caused = true;
    requestAnimationFrame(() => requestAnimationFrame(() => { caused = false; }));
  });
})();"""


@cache
def static_text(name: str) -> str:
    """A file that the page has as well, as text."""
    return files("asyncflow").joinpath("page", "static", *name.split("/")).read_text("utf-8")


@cache
def _chart_scripts() -> list[str]:
    """The scripts that draw charts: Vega, Vega-Lite, and what runs expressions without `eval`.

    That last one is a module which imports another package. Vega has what it imports.
    """
    text = _IMPORT.sub(r"const \1 = globalThis.vega;", static_text(_INTERPRETER))
    text = _EXPORT.sub(r"globalThis.vegaInterpreter = { \2: \1 };", text)
    return [*map(static_text, _VEGA_FILES), f"{{\n{text}\n}}"]


def card_page(drawing: Mapping[str, Any]) -> str:
    """The card as one HTML file; a card that is only HTML is that."""
    if is_only_html(drawing):
        return str(drawing["html"])
    parts = drawing["parts"]
    if drawing["html"] is not None:
        drawing = {**drawing, "html": html_for_frame(drawing["html"])}
    title = drawing["title"] or drawing["pathspec"]
    has_html = drawing["html"] is not None
    return page_with(title, {"card": drawing}, charts=uses_vega(parts), has_html=has_html)


def is_only_html(drawing: Mapping[str, Any]) -> bool:
    """Whether a card is HTML that a step has made, and has no components."""
    return drawing["html"] is not None and not drawing["parts"]


def html_for_frame(html: str) -> str:
    """HTML that a step has made, for a frame of a page.

    It tells the page how high it is, which then makes the frame as high. If it names no colour, it
    has those of the page, which shows through. If it names one, it is left as it would look alone.
    """
    doctype = _DOCTYPE.match(html)
    end = doctype.end() if doctype is not None else 0
    head = html[:end] or "<!DOCTYPE html>"
    styles = "" if _COLOURS.search(html, end) else _PAGE_COLOURS
    return f"{head}{styles}<script>{_TELL_HEIGHT}</script>{html[end:]}"


def page_with(
    title: str,
    data: Mapping[str, Any],
    *,
    charts: bool,
    scripts: Iterable[str] = (),
    styles: Iterable[str] = (),
    has_html: bool = False,
) -> str:
    """One HTML file with these data, and the scripts and styles that draw them.

    Args:
        title: The document's title.
        data: What the scripts find as JSON in `#data`.
        charts: Whether Vega is needed.
        scripts: Further scripts of the page's to run after `cards.js`.
        styles: Further style sheets of the page's.
        has_html: Whether a frame in it shows HTML of a step's.
    """
    plain = _chart_scripts() if charts else []
    modules = ["\n".join(static_text(name) for name in ("cards.js", *scripts))]
    css = "\n".join(static_text(name) for name in ("cards.css", "card_page.css", *styles))
    policy = HTML_POLICY if has_html else content_policy([*plain, *modules], [css])
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            f"<style>{css}</style>",
            "</head><body>",
            '<main id="card"></main>',
            f'<script type="application/json" id="data">{_as_json(data)}</script>',
            *(f"<script>{text}</script>" for text in plain),
            *(f'<script type="module">{text}</script>' for text in modules),
            "</body></html>\n",
        )
    )


def _as_json(data: Mapping[str, Any]) -> str:
    """JSON that no parser of HTML takes for markup."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def content_policy(scripts: Iterable[str], styles: Iterable[str]) -> str:
    """The policy that allows these scripts and styles within a file, and images within it."""
    return (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; "
        "img-src data:; frame-src 'self'; form-action 'none'; base-uri 'none'"
    )


def _hashes(texts: Iterable[str]) -> str:
    digests = (hashlib.sha256(text.encode()).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in digests)


def framed(page: str, *, title: str) -> str:
    """A card within another document, such as a notebook, in a frame that reaches nothing else."""
    return (
        f'<iframe title="{escape(title)}" sandbox="allow-scripts" srcdoc="{escape(page)}" '
        'style="width: 100%; height: 480px; border: 1px solid #8884; border-radius: 6px; '
        'resize: vertical"></iframe>'
    )
