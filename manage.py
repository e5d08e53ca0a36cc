#!/usr/bin/env python3
"""Django's command line for OpenVibe."""

import os
import sys

from openvibe.errors import SetupError

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "openvibe_site.settings")
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except SetupError as error:
        # Whoever set something wrong needs the sentence, not the way to it.
        sys.exit(str(error))
