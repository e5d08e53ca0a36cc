"""`openvibe init`: the files of a new project, with an operator that runs and a test that passes."""

from __future__ import annotations

import argparse
import shlex
from importlib import resources
from pathlib import Path

from openvibe.cli.arguments import Commands, command
from openvibe.errors import SetupError

#: Where each file of the starter goes; the starter's own names end in .txt, since they are no modules of this package.
FILES = {
    "letters.py.txt": "letters.py",
    "test_letters.py.txt": "tests/test_letters.py",
    "README.md.txt": "README.md",
    "pytest.ini.txt": "pytest.ini",
    "gitignore.txt": ".gitignore",
}


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "init", _init, help="Write a new project's files into an empty folder")
    parser.add_argument("folder", help="the folder; it is made if need be")


def _init(options: argparse.Namespace) -> int:
    folder = Path(options.folder).expanduser()
    written = write(folder)
    print(f"{folder} has {', '.join(written)}.")
    print(f"Next: cd {shlex.quote(str(folder))} && python letters.py")
    return 0


def write(folder: Path) -> list[str]:
    """Write the files of a new project and return their names.

    Raises:
        SetupError: the folder is not empty, or cannot be written.
    """
    starter = resources.files("openvibe.cli") / "starter"
    try:
        if folder.exists() and any(folder.iterdir()):
            raise SetupError(f"{folder} is not empty: name a folder that is, or one that does not exist yet.")
        for source, name in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (starter / source).read_text("utf-8").replace("{name}", folder.resolve().name)
            # A folder's name need not be text.
            path.write_text(text, "utf-8", errors="replace")
    except OSError as error:
        raise SetupError(f"{folder} cannot be written ({error.strerror}): name a folder of your own.") from error
    return list(FILES.values())
