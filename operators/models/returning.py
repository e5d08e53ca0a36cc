"""Conditional updates that tell what they changed, in one statement on SQLite and PostgreSQL alike."""

from __future__ import annotations

from typing import Any, cast

from django.db import connections, models
from django.db.models.sql import UpdateQuery


def update_returning(rows: models.QuerySet[Any], *fields: str, **values: Any) -> tuple[Any, ...] | None:
    """Update the one row that `rows` selects and return these of its fields, or None if there was no such row.

    Django's `update()` only counts; a second query for the new values would be a round trip more for every step.
    """
    query = cast(UpdateQuery, rows.query.chain(UpdateQuery))
    query.add_update_values(values)
    query.clear_ordering(force=True)
    connection = connections[rows.db]
    sql, parameters = query.get_compiler(connection=connection).as_sql()
    if not sql:
        return None
    quote = connection.ops.quote_name
    columns = ", ".join(quote(rows.model._meta.get_field(name).column) for name in fields)
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} RETURNING {columns}", parameters)
        found: tuple[Any, ...] | None = cursor.fetchone()
    return found
