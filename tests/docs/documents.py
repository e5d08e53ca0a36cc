"""The documents as tests read them: fenced blocks with their marks, tables, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
ALL = [README, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(
    r"(?:^<!-- test: (?P<mark>[\w ./-]+) -->\n)?^(?P<fence>```+)(?P<language>\w+)\n(?P<code>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block; `mark` is what the comment above it tells the tests to do."""

    mark: str
    language: str
    code: str


def blocks(path: Path) -> list[Block]:
    """Return a document's fenced blocks, in order."""
    found = _FENCE.finditer(path.read_text("utf-8"))
    return [Block(item["mark"] or "", item["language"], item["code"]) for item in found]


def save_modules(path: Path, folder: Path) -> list[str]:
    """Save a document's modules and files into a folder and return the modules' names."""
    names = []
    for block in blocks(path):
        kind, _, name = block.mark.partition(" ")
        if kind == "module":
            names.append(name)
            name = f"{name}.py"
        if kind in ("module", "file"):
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(block.code, "utf-8")
    return names


def shown(path: Path, mark: str) -> list[tuple[Block, str]]:
    """Return a document's blocks of a mark, each with the text that it is said to print; empty if none follows."""
    found = blocks(path)
    follows = [*found[1:], Block("", "", "")]
    return [
        (block, after.code if after.language == "text" and not after.mark else "")
        for block, after in zip(found, follows, strict=False)
        if block.mark == mark
    ]


def prose(path: Path) -> str:
    """Return a document without its fenced blocks."""
    return _FENCE.sub("", path.read_text("utf-8"))


def section(path: Path, title: str) -> str:
    """Return what stands below a heading, up to the next of the second level."""
    found = re.search(
        rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", path.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert found, f"{path.name} has no section {title!r}"
    return found[2]


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of each table, without headings."""
    for line in text.splitlines():
        if line.startswith("| `") or line.startswith("| ["):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def quoted(text: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def links(path: Path) -> list[str]:
    """Return the targets of a document's links into the project, each with its fragment."""
    return [target for target in _LINK.findall(prose(path)) if not re.match(r"[a-z]+:", target)]


def anchors(path: Path) -> set[str]:
    """Return the fragments that a document's headings can be reached by."""
    titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
