"""The entry point: reads the arguments, calls one command, and turns what went wrong into one sentence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from openvibe import controls
from openvibe.cli import decisions, definitions, project, publishing, runs, serving, soaking, timeline
from openvibe.errors import OpenVibeError, SetupError

WRONG, FAILED, INTERRUPTED = 2, 1, 130
#: The modules whose `add` brings commands, in the order of the help.
GROUPS = (serving, definitions, runs, timeline, decisions, publishing, soaking, project)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 if it failed, 2 if it was asked for wrongly."""
    parser = argparse.ArgumentParser(prog="openvibe", description="The control room for AI operators.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="<command>")
    for group in GROUPS:
        group.add(commands)
    try:
        options = parser.parse_args(arguments)
        return int(options.command(options))
    except SetupError as error:
        return _told(error, WRONG)
    except OpenVibeError as error:
        return _told(error, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever reads, such as `head`, has seen enough; closing now keeps Python from complaining at its end.
        sys.stderr.close()
        return FAILED


def _told(error: OpenVibeError, status: int) -> int:
    print(f"openvibe: {controls.escaped(str(error))}", file=sys.stderr)
    return status
