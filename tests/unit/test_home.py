"""Tests stand on a home of their own, also where several processes run them."""

from pathlib import Path

from django.conf import settings

from tests.conftest import HOME


def test_this_processs_home_is_its_own():
    # Read anew, this file would have made another one.
    assert Path(settings.OPENVIBE.home) == HOME
