"""Markdown and Python code as trees of plain data, which a script can draw without parsing markup.

A node of Markdown is text, or `[tag, children]`, or `[tag, children, attributes]`, with tags and
attributes from a short list. HTML within Markdown is text. Links lead to the web, to mail, or
within the page; images are shown only if they are within the text (`data:`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from markdown_it.token import Token

Node = Any
"""Text, or a list of a tag, its children, and attributes if it has any."""

_BLOCKS: Final = frozenset(
    {
        *("p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote"),
        *("table", "thead", "tbody", "tr", "th", "td", "em", "strong", "s"),
    }
)
_LINKS: Final = ("http://", "https://", "mailto:", "#")
_IMAGES: Final = tuple(f"data:image/{each};base64," for each in ("png", "jpeg", "gif", "webp"))
_MOST_CODE: Final = 64 << 10  # longer code is shown without colours
_KINDS: Final = (
    ("Token.Keyword", "k"),
    ("Token.Operator.Word", "k"),
    ("Token.Literal.String", "s"),
    ("Token.Literal.Number", "n"),
    ("Token.Comment", "c"),
    ("Token.Name.Function", "f"),
    ("Token.Name.Class", "f"),
    ("Token.Name.Decorator", "d"),
    ("Token.Name.Builtin", "b"),
)
"""The colours of code: those of its tokens' kinds."""


def markdown_tree(text: str) -> list[Node]:
    """Markdown as a tree; deep nesting is cut off by the parser."""
    from markdown_it import MarkdownIt  # with Rich, on which asyncflow depends

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    return _tree(parser.parse(text))


def _tree(tokens: list[Token]) -> list[Node]:
    root: list[Node] = []
    stack = [root]
    for token in tokens:
        if token.nesting < 0:
            if len(stack) > 1:
                stack.pop()
        elif token.nesting > 0:
            children: list[Node] = []
            stack[-1].append(_opened(token, children))
            stack.append(children)
        else:
            stack[-1].extend(_leaf(token))
    return root


def _opened(token: Token, children: list[Node]) -> Node:
    if token.hidden:  # the paragraph of a tight list
        return ["span", children]
    if token.tag == "a":
        href = str(token.attrGet("href") or "")
        return ["a", children, {"href": href}] if href.startswith(_LINKS) else ["span", children]
    tag = token.tag if token.tag in _BLOCKS else "span"
    style = str(token.attrGet("style") or "")
    if style.startswith("text-align:"):
        return [tag, children, {"align": style.partition(":")[2]}]
    start = token.attrGet("start") if tag == "ol" else None
    return [tag, children, {"start": int(start)}] if start is not None else [tag, children]


def _leaf(token: Token) -> list[Node]:  # noqa: PLR0911 - one answer for each kind
    match token.type:
        case "inline":
            return _tree(token.children or [])
        case "softbreak":
            return ["\n"]
        case "hardbreak":
            return [["br", []]]
        case "hr":
            return [["hr", []]]
        case "code_inline":
            return [["code", [token.content]]]
        case "fence" | "code_block":
            return [_fenced(token)]
        case "image":
            return [_picture(token)]
        case _:
            return [token.content] if token.content else []


def _fenced(token: Token) -> Node:
    code = token.content.rstrip("\n")
    if token.info.strip().lower() in {"python", "py", "python3"}:
        return ["pre", [["span", [text], {"code": kind}] for kind, text in highlighted(code)]]
    return ["pre", [code]]


def _picture(token: Token) -> Node:
    source, label = str(token.attrGet("src") or ""), token.content
    if source.startswith(_IMAGES):
        return ["img", [], {"src": source, "alt": label}]
    link = source.startswith(_LINKS)
    return ["a", [label or source], {"href": source}] if link else label


def highlighted(code: str) -> list[list[str]]:
    """Python code as pairs of a kind and text; the kind is empty for what has no colour."""
    if len(code) > _MOST_CODE:
        return [["", code]]
    from pygments.lexers.python import PythonLexer  # with Rich, too

    pairs: list[list[str]] = []
    for token, text in PythonLexer(stripnl=False, ensurenl=False).get_tokens(code):
        name = str(token)
        kind = next((short for long, short in _KINDS if name.startswith(long)), "")
        if pairs and pairs[-1][0] == kind:
            pairs[-1][1] += text
        else:
            pairs.append([kind, text])
    return pairs
