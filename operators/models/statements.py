"""The few statements that every step of every run needs, with as little around them as the database allows.

Django's ORM compiles each statement anew and waits for each answer; here that would be most of a step's time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, cast

from django.db import connection, connections, models
from django.db.models.sql import UpdateQuery

#: What an insert does with a row whose unique key is there already.
OnConflict = Literal["fail", "ignore", "replace"]

#: SQLite's least bound on the parameters of one statement since 3.32 is 32,766; PostgreSQL's is 65,535.
MOST_PARAMETERS = 30_000


def update_returning(rows: models.QuerySet[Any], *fields: str, **values: Any) -> tuple[Any, ...] | None:
    """Update the one row that `rows` selects and return these of its fields, or None if there was no such row.

    Django's `update()` only counts; a second query for the new values would be a round trip more for every step.
    """
    query = cast(UpdateQuery, rows.query.chain(UpdateQuery))
    query.add_update_values(values)
    query.clear_ordering(force=True)
    database = connections[rows.db]
    sql, parameters = query.get_compiler(connection=database).as_sql()
    if not sql:
        return None
    quote = database.ops.quote_name
    columns = ", ".join(quote(rows.model._meta.get_field(name).column) for name in fields)
    with database.cursor() as cursor:
        cursor.execute(f"{sql} RETURNING {columns}", parameters)
        found: tuple[Any, ...] | None = cursor.fetchone()
    return found


def advance(
    model: type[models.Model],
    *,
    where: Mapping[str, Any],
    put: Mapping[str, Any],
    add: Mapping[str, Any],
    returning: str,
) -> Any:
    """Update the one row whose fields equal `where`: set the fields of `put`, raise those of `add` by an amount.

    Returns the new value of one field, or None if there was no such row. What `update_returning` does for any
    condition, this does for plain equalities from a statement that is compiled once.
    """
    fields = named(model)
    sql = _advance_sql(model, tuple(where), tuple(put), tuple(add), returning)
    values = [
        fields[name].get_db_prep_save(value, connection) for part in (put, add, where) for name, value in part.items()
    ]
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        found = cursor.fetchone()
    return found[0] if found else None


def insert(model: type[models.Model], rows: Sequence[Any], *, on_conflict: OnConflict = "fail") -> None:
    """Insert rows of one model, objects with its columns as attributes, without asking for their new ids.

    `replace` overwrites the row with the same unique key (the model's first constraint), `ignore` keeps it.
    """
    if not rows:
        return
    fields = columns(model)
    most = max(1, MOST_PARAMETERS // len(fields))
    with connection.cursor() as cursor:
        for start in range(0, len(rows), most):
            part = rows[start : start + most]
            values = [
                field.get_db_prep_save(getattr(row, field.attname), connection) for row in part for field in fields
            ]
            cursor.execute(_insert_sql(model, len(part), on_conflict), values)


def load(model: type[models.Model], names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write many rows, given as what the database keeps in these columns: by `COPY` where there is one."""
    table = f"{quoted(model)} ({', '.join(map(connection.ops.quote_name, names))})"
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            marks = ", ".join(["%s"] * len(names))
            cursor.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608  # names of our own models
            return
        # A row's fault may show only at the end of the copying, where none of Django's cursors translates it.
        with connection.wrap_database_errors, cursor.copy(f"COPY {table} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)


def present(model: type[models.Model], names: Sequence[str], keys: Sequence[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Return which of these combinations of texts stand in these columns of some row."""
    if not keys:
        return set()
    columns = [connection.ops.quote_name(name) for name in names]
    listed = ", ".join(columns)
    parameters: list[Any]
    if connection.vendor == "postgresql":
        # One parameter a column, because a mark for each of hundreds of values costs more than looking them up. And for
        # each the first row from there on, because only the index of these very columns has that order: a plain
        # comparison is planned by what the table was like when it was counted last, at times by another index.
        arrays = ", ".join(["%s::text[]"] * len(names))
        row, wanted = (", ".join(f"{table}.{name}" for name in columns) for table in ("row", "wanted"))
        following = f"WHERE ({row}) >= ({wanted}) AND {_known(columns, 'row.')} ORDER BY {row} LIMIT 1"
        next_one = f"SELECT {row} FROM {quoted(model)} row {following}"  # noqa: S608
        sql = (
            f"SELECT wanted.* FROM unnest({arrays}) AS wanted({listed}), LATERAL ({next_one}) row"  # noqa: S608
            f" WHERE ({row}) = ({wanted})"
        )
        parameters = [list(values) for values in zip(*keys, strict=True)]
    else:
        marks = ", ".join([f"({', '.join(['%s'] * len(names))})"] * len(keys))
        wanted = f"({listed}) IN (VALUES {marks}) AND {_known(columns)}"
        sql = f"SELECT {listed} FROM {quoted(model)} WHERE {wanted}"  # noqa: S608  # as above
        parameters = [value for key in keys for value in key]
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return set(cursor.fetchall())


def _known(columns: Sequence[str], table: str = "") -> str:
    # Said aloud, because an index may leave out what is null.
    return " AND ".join(f"{table}{name} IS NOT NULL" for name in columns)


def quoted(model: type[models.Model]) -> str:
    """Return the name of a model's table, as it stands in a statement."""
    return connection.ops.quote_name(model._meta.db_table)


@cache
def _advance_sql(
    model: type[models.Model], where: tuple[str, ...], put: tuple[str, ...], add: tuple[str, ...], returning: str
) -> str:
    column = {name: connection.ops.quote_name(str(field.column)) for name, field in named(model).items()}
    changes = [f"{column[name]} = %s" for name in put] + [f"{column[name]} = {column[name]} + %s" for name in add]
    conditions = " AND ".join(f"{column[name]} = %s" for name in where)
    table = connection.ops.quote_name(model._meta.db_table)
    # Only names of our own models are put into the text; every value is a parameter.
    return f"UPDATE {table} SET {', '.join(changes)} WHERE {conditions} RETURNING {column[returning]}"  # noqa: S608


@cache
def named(model: type[models.Model]) -> dict[str, models.Field[Any, Any]]:
    """Return a model's columns by name; a foreign key goes by its own name and by its column's."""
    return {name: field for field in model._meta.concrete_fields for name in (field.name, field.attname)}


@cache
def columns(model: type[models.Model]) -> list[models.Field[Any, Any]]:
    """Return the fields that an insert fills; the database numbers rows itself where nobody else does."""
    return [field for field in model._meta.concrete_fields if not isinstance(field, models.AutoField)]


@cache
def _insert_sql(model: type[models.Model], rows: int, on_conflict: OnConflict) -> str:
    quote = connection.ops.quote_name
    fields = columns(model)
    names = ", ".join(quote(str(field.column)) for field in fields)
    row = f"({', '.join(['%s'] * len(fields))})"
    table = quote(model._meta.db_table)
    sql = f"INSERT INTO {table} ({names}) VALUES {', '.join([row] * rows)}"  # noqa: S608  # names of our own models
    return sql + conflict(model, on_conflict)


def conflict(model: type[models.Model], on_conflict: OnConflict) -> str:
    """Return what an insert says of a row whose unique key (the model's first constraint) is there already."""
    if on_conflict == "fail":
        return ""
    if on_conflict == "ignore":
        return " ON CONFLICT DO NOTHING"
    quote = connection.ops.quote_name
    key = cast(models.UniqueConstraint, model._meta.constraints[0]).fields
    taken = ", ".join(
        f"{quote(str(field.column))} = excluded.{quote(str(field.column))}"
        for field in columns(model)
        if field.name not in key
    )
    return f" ON CONFLICT ({', '.join(quote(name) for name in key)}) DO UPDATE SET {taken}"
