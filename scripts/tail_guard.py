"""Fails when a module or a function has grown too long, or when a module's name says nothing.

A longer one gives its reason on its first line: `# long: <reason>`.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE_LINES = 400
FUNCTION_LINES = 40
EMPTY_NAMES = {"utils", "helpers", "common", "core", "base", "manager", "misc"}
REASON = re.compile(r"#\s*long:\s*\S")


def main() -> int:
    found = [complaint for path in modules(ROOT) for complaint in complaints(path)]
    for complaint in found:
        print(complaint)
    print(f"tail guard: {len(found)} complaints" if found else "tail guard: no module and no function is too long")
    return 1 if found else 0


def modules(root: Path) -> Iterator[Path]:
    """Python files that git knows or would add; without git, all of them outside hidden folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True, text=True).stdout.split("\0")
        paths = [Path(name) for name in sorted(set(listed)) if name]
    except (OSError, subprocess.CalledProcessError):
        paths = sorted(path.relative_to(root) for path in root.rglob("*.py"))
    for path in paths:
        hidden = any(part.startswith(".") for part in path.parts)
        if not hidden and "migrations" not in path.parts and (root / path).is_file():
            yield path


def complaints(path: Path) -> Iterator[str]:
    source = (ROOT / path).read_text("utf-8")
    lines = source.splitlines()
    for name in (*path.parent.parts, path.stem):
        if name in EMPTY_NAMES:
            yield f"{path}: the name {name!r} says nothing; name it by what it defines or does"
    if len(lines) > MODULE_LINES and not REASON.search(lines[0]):
        yield f"{path}: {len(lines)} lines, more than {MODULE_LINES}"
    if "tests" not in path.parts:
        yield from long_functions(path, ast.parse(source), lines)


def long_functions(path: Path, tree: ast.Module, lines: list[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES and not REASON.search(lines[node.lineno - 1]):
                yield f"{path}:{node.lineno}: {node.name} has {length} lines, more than {FUNCTION_LINES}"


if __name__ == "__main__":
    sys.exit(main())
