"""`openvibe serve`: the site with operators of modules and files."""

from __future__ import annotations

import argparse

from openvibe import server
from openvibe.cli.arguments import Commands, add_sources, command


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "serve", _serve, help="Serve operators: pages, REST API and workers, until Ctrl-C")
    add_sources(parser, served=True)
    parser.add_argument("--port", type=int, help="port on 127.0.0.1 (else $OPENVIBE_PORT, else 8000)")
    parser.add_argument("--reload", action="store_true", help="start afresh when a file of the operators changes")


def _serve(options: argparse.Namespace) -> int:
    # Without modules the site reads OPENVIBE_OPERATORS itself.
    return server.site()(sources=options.modules, only=options.operators, port=options.port, reload=options.reload)
