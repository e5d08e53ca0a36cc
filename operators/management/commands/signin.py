"""`manage.py signin [name]`: prints a fresh sign-in link."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from operators.management.commands import prepare


class Command(BaseCommand):
    """Prints a link that signs one user in once."""

    help = "Print a fresh one-click sign-in link."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the user's name."""
        parser.add_argument("name", nargs="?", default=prepare.ADMINISTRATOR)

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the link."""
        user = get_user_model().objects.filter(username=options["name"], is_active=True).first()
        if user is None:
            raise CommandError(f"There is no active user {options['name']!r}; make one in /admin/")
        self.stdout.write(prepare.link(user))
