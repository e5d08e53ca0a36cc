"""Django's command line for OpenVibe, wherever its packages lie: `python -m openvibe_site <command>`."""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

from openvibe.errors import SetupError


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "openvibe_site.settings")
    try:
        execute_from_command_line(sys.argv)
    except SetupError as error:
        # Whoever set something wrong needs the sentence, not the way to it.
        sys.exit(str(error))


if __name__ == "__main__":
    main()
