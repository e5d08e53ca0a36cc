#!/usr/bin/env python3
"""Django's command line for OpenVibe, from a checkout."""

from openvibe_site.__main__ import main

if __name__ == "__main__":
    main()
