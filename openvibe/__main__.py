"""`python -m openvibe`: the command line."""

import sys

from openvibe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
