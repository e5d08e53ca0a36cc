"""`manage.py prepare`: everything that must stand before the first process starts; quick when it stands already."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from operators.models import ApiToken, Membership, Project
from operators.models.project import DEFAULT
from operators.services import presence, registration, schedule, signin

ADMINISTRATOR = "admin"
LONGEST_NAME = ApiToken._meta.get_field("name").max_length or 0
#: Any number that no other program takes for a lock of this database.
LOCK = 0x0BE41BE


class Command(BaseCommand):
    """Migrates, registers operators, and makes the first administrator, token and sign-in link."""

    # Checking every URL and template costs seconds at each start; `make check` and the processes themselves do it.
    requires_system_checks = []
    help = "Prepare database, operators, the first administrator, its API token and a sign-in link."

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it, telling each part."""
        self._reach_database()
        with one_at_a_time():
            self._prepare()

    def _prepare(self) -> None:
        self._migrate()
        presence.forget_the_dead()
        project, _ = Project.objects.get_or_create(id=DEFAULT, defaults={"name": "Default"})
        operators = registration.register_all(project)
        schedule.write(project)
        self.stdout.write(f"registered {len(operators)} operators: {', '.join(item.slug for item in operators)}")
        user = self._administrator(project)
        home = settings.OPENVIBE.home
        _token(home / "token", user, project)
        _write(home / "signin", link(user))

    def _reach_database(self) -> None:
        try:
            connection.ensure_connection()
        except OperationalError as error:
            told = settings.DATABASES["default"]
            where = f"{told.get('HOST') or 'localhost'}:{told.get('PORT') or 5432}"
            if connection.vendor == "sqlite":
                raise CommandError(f"The database {told['NAME']} cannot be used: {error}") from error
            raise CommandError(f"DATABASE_URL names a database at {where} that does not let us in: {error}") from error

    def _migrate(self) -> None:
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if plan:
            self.stdout.write(f"migrating the database: {len(plan)} steps")
            call_command("migrate", verbosity=0, interactive=False)

    def _administrator(self, project: Project) -> AbstractUser:
        users = get_user_model().objects
        user = users.filter(is_superuser=True, is_active=True).order_by("pk").first()
        if user is None:
            user = users.create_superuser(ADMINISTRATOR, email="", password=None)
            self.stdout.write(f"made the administrator {ADMINISTRATOR!r} (no password yet: sign in by link)")
        Membership.objects.get_or_create(project=project, user=user, defaults={"role": Membership.Role.OWNER})
        return user


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let servers that share a database prepare it one after the other; a file has one server, which holds its home."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def token_name(home: Path) -> str:
    """Return the name of the token that lies in a home; servers that share a database have a home each."""
    name = f"make run: {socket.gethostname()}:{home}"
    return name if len(name) <= LONGEST_NAME else f"make run: {hashlib.sha256(name.encode()).hexdigest()}"


def link(user: AbstractUser) -> str:
    """Return a fresh sign-in link."""
    return f"http://127.0.0.1:{settings.OPENVIBE.port}/signin/{signin.token(user)}/"


def _token(path: Path, user: AbstractUser, project: Project) -> None:
    kept = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    if kept and ApiToken.objects.filter(key_sha256=ApiToken.fingerprint(kept)).exists():
        return
    key = ApiToken.new_key()
    name = token_name(path.parent)
    # Whoever deletes the file wants the old token gone.
    ApiToken.objects.filter(name=name, project=project, user_id=user.pk).delete()
    ApiToken.objects.create(key_sha256=ApiToken.fingerprint(key), name=name, project=project, user_id=user.pk)
    _write(path, key)


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{text}\n")
