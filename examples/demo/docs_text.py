"""Python's HTML documentation as Markdown-like text, and as entries ("what does X do") to build a chat from.

Reads the pages that Debian's `python3.x-doc` carries (Sphinx output) with the standard library alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "col", "wbr"})
_SKIPPED = frozenset({"script", "style", "nav", "form", "colgroup", "hr", "img"})
_BLOCKS = frozenset(
    {
        "p",
        "div",
        "section",
        "ul",
        "ol",
        "dl",
        "table",
        "pre",
        "blockquote",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
    }
)
_SECTIONS = ("tutorial", "library", "reference", "howto", "faq")
_ASCII = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2026": "...", "\xa0": " "}
)  # typographic marks, which are rare enough to waste a small vocabulary


@dataclass(slots=True)
class Node:
    """An HTML element; text is a `str` child."""

    tag: str
    attrs: dict[str, str] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    @property
    def classes(self) -> frozenset[str]:
        return frozenset(self.attrs.get("class", "").split())

    def walk(self) -> Iterator[Node]:
        """This element and every element under it, in document order."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(child for child in reversed(node.children) if isinstance(child, Node))


@dataclass(frozen=True, slots=True)
class Entry:
    """One documented thing: a function, class, method, module or glossary term."""

    kind: str  # "function" | "class" | "method" | "attribute" | "data" | "exception" | "module" | "term"
    name: str  # "os.path.join", "json", "generator"
    signature: str  # "os.path.join(path, *paths)"; the name again for modules and terms
    description: str  # Markdown paragraphs, blank lines between


@dataclass(frozen=True, slots=True)
class Page:
    """One documentation page."""

    path: str  # "library/os.path.html"
    text: str
    entries: tuple[Entry, ...]


class _TreeBuilder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("root")
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(node)
        if tag not in _VOID:
            self._open.append(node)

    def handle_endtag(self, tag: str) -> None:
        for depth in range(len(self._open) - 1, 0, -1):
            if self._open[depth].tag == tag:
                del self._open[depth:]
                return

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data.translate(_ASCII))


def _plain(node: Node) -> str:
    """Text with its white space as it stands; permalinks left out."""
    parts = []
    for child in node.children:
        if isinstance(child, str):
            parts.append(child)
        elif "headerlink" not in child.classes and child.tag not in _SKIPPED:
            parts.append(_plain(child))
    return "".join(parts)


def _inline(node: Node) -> str:
    parts = []
    for child in node.children:
        if isinstance(child, str):
            parts.append(child)
        elif child.tag in _SKIPPED or "headerlink" in child.classes:
            continue
        elif child.tag == "code":
            parts.append(f"`{_plain(child)}`")
        elif child.tag == "br":
            parts.append(" ")
        else:
            parts.append(_inline(child))
    return "".join(parts)


def _line(node: Node) -> str:
    return " ".join(_inline(node).split())


def _signature(dt: Node) -> str:
    return " ".join(_plain(dt).replace("¶", "").split())


class _Renderer:
    """Turns a page's element tree into Markdown blocks."""

    def blocks(self, node: Node) -> list[str]:
        out: list[str] = []
        loose: list[Node | str] = []  # inline content between blocks

        def flush() -> None:
            line = _line(Node("p", {}, list(loose)))
            loose.clear()
            if line:
                out.append(line)

        for child in node.children:
            if isinstance(child, Node) and child.tag in _BLOCKS:
                flush()
                out.extend(self._block(child))
            else:
                loose.append(child)
        flush()
        return out

    def _block(self, node: Node) -> list[str]:
        match node.tag:
            case "pre":
                return [f"```\n{_plain(node).strip(chr(10))}\n```"]
            case "h1" | "h2" | "h3" | "h4" | "h5" | "h6":
                return [f"{'#' * int(node.tag[1])} {_line(node)}"]
            case "p":
                line = _line(node)
                return [line] if line else []
            case "ul" | "ol":
                return self._list(node)
            case "table":
                rows = [n for n in node.walk() if n.tag == "tr"]
                cells = [[_line(c) for c in row.children if isinstance(c, Node)] for row in rows]
                return ["\n".join("| " + " | ".join(row) + " |" for row in cells)] if cells else []
            case "dl":
                return self._definitions(node)
            case _:
                if "toctree-wrapper" in node.classes or "contents" in node.classes:
                    return []
                return self.blocks(node)

    def _list(self, node: Node) -> list[str]:
        items = []
        for number, item in enumerate((c for c in node.children if isinstance(c, Node) and c.tag == "li"), 1):
            mark = f"{number}. " if node.tag == "ol" else "- "
            body = "\n".join(self.blocks(item))
            items.append(mark + body.replace("\n", "\n  "))
        return ["\n".join(items)] if items else []

    def _definitions(self, node: Node) -> list[str]:
        documented = "py" in node.classes or "c" in node.classes
        out = []
        for child in node.children:
            if isinstance(child, str):
                continue
            if child.tag == "dt":
                text = _signature(child) if documented else _line(child)
                out.append(f"`{text}`" if documented else f"**{text}**")
            elif child.tag == "dd":
                out.extend(self.blocks(child))
        return out


def _entries(body: Node, renderer: _Renderer) -> list[Entry]:
    found = []
    for node in body.walk():
        if node.tag != "dl" or not node.classes & {"py", "glossary"}:
            continue
        terms: list[Node] = []
        for child in node.children:
            if isinstance(child, str):
                continue
            if child.tag == "dt":
                terms.append(child)
            elif child.tag == "dd" and terms:
                entry = _entry(node, terms[0], child, renderer)
                terms = []
                if entry is not None:
                    found.append(entry)
    return found


def _entry(dl: Node, dt: Node, dd: Node, renderer: _Renderer) -> Entry | None:
    nested = [c for c in dd.children if not (isinstance(c, Node) and c.tag == "dl" and "py" in c.classes)]
    description = "\n\n".join(renderer.blocks(Node("dd", {}, nested)))
    if not description:
        return None
    if "glossary" in dl.classes:
        name = _line(dt)
        return Entry("term", name, name, description)
    name = dt.attrs.get("id", "")
    kind = next(
        (k for k in ("function", "method", "class", "exception", "data", "attribute") if k in dl.classes), ""
    )
    if not name or not kind:
        return None
    return Entry(kind, name, _qualified(name, _signature(dt)), description)


def _qualified(name: str, signature: str) -> str:
    """`wrap(text)` documented under `TextWrapper` becomes `textwrap.TextWrapper.wrap(text)`."""
    signature = re.sub(
        r"^(class|exception|classmethod|staticmethod|abstractmethod|coroutine|async) ", "", signature
    )
    head, paren, rest = signature.partition("(")
    last = name.rpartition(".")[2]
    if head.strip().rpartition(".")[2] == last:
        return f"{name}{paren}{rest}"
    return signature


def _module_entry(body: Node, renderer: _Renderer) -> Entry | None:
    """The introduction of a page whose first section documents a module."""
    section = next((n for n in body.walk() if n.tag == "section"), None)
    if section is None or not section.attrs.get("id", "").startswith("module-"):
        return None
    intro = []
    for block in renderer.blocks(section)[1:]:
        if (
            block.startswith(("#", "`", "|"))
            and not block.startswith("```")
            and block.endswith(("`", "#", "|"))
        ):
            break
        if block.startswith("#"):
            break
        if not block.startswith("Source code:"):
            intro.append(block)
    name = section.attrs["id"].removeprefix("module-")
    return Entry("module", name, name, "\n\n".join(intro)) if intro else None


def read_page(root: Path, path: str) -> Page | None:
    """The page at `root/path`, or None where it holds no documentation body."""
    builder = _TreeBuilder()
    builder.feed((root / path).read_text(encoding="utf-8"))
    body = next((n for n in builder.root.walk() if n.attrs.get("role") == "main"), None)
    if body is None:
        return None
    renderer = _Renderer()
    text = "\n\n".join(renderer.blocks(body)).strip() + "\n"
    module = _module_entry(body, renderer)
    entries = ([module] if module else []) + _entries(body, renderer)
    return Page(path, text, tuple(entries))


def read_docs(root: Path, min_chars: int = 600) -> list[Page]:
    """Every page of the sections used for training, sorted by path; index-like pages are left out.

    `root` is the directory with `library/`, `tutorial/` and so on in it. What's New and the C API are not
    read: a model this small has room for one subject.
    """
    paths = ["glossary.html"]
    for section in _SECTIONS:
        paths.extend(
            f"{section}/{p.name}" for p in sorted((root / section).glob("*.html")) if p.name != "index.html"
        )
    pages = (read_page(root, path) for path in paths)
    return sorted((p for p in pages if p and len(p.text) >= min_chars), key=lambda p: p.path)
