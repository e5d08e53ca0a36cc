"""One step of one run in one statement: the run's row is changed under its claim, and what goes with it is written.

On PostgreSQL it is a single statement, hence a single round trip and, outside of a transaction, a commit of its own:
everything else selects from the row that the update changed, so that without that row nothing is written. Elsewhere the
same is done by a statement for each part, in a transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from django.db import connection, models, transaction

from operators.models.statements import OnConflict, advance, columns, conflict, insert


@dataclass(frozen=True)
class Insert:
    """Rows of one model. `numbered` names the field that gets consecutive numbers, the last one being the counter's."""

    rows: Sequence[models.Model]
    on_conflict: OnConflict = "fail"
    numbered: str = ""


@dataclass(frozen=True)
class Update:
    """A change of every row of a model whose fields equal `where`."""

    model: type[models.Model]
    where: Mapping[str, Any]
    put: Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """The change of the one row that everything hangs on: see `advance`."""

    model: type[models.Model]
    where: Mapping[str, Any]
    put: Mapping[str, Any]
    add: Mapping[str, Any]
    counter: str
    inserts: Sequence[Insert] = field(default=())
    updates: Sequence[Update] = field(default=())


def strike(change: Change) -> int | None:
    """Do it all and return the counter's new value, or None, and then nothing was written.

    Rows that are numbered bear their numbers afterwards.
    """
    wanted = [item for item in change.inserts if item.rows]
    if connection.vendor == "postgresql":
        counter = _at_once(change, wanted)
    elif connection.in_atomic_block:
        counter = _one_by_one(change, wanted)
    else:
        with transaction.atomic():
            counter = _one_by_one(change, wanted)
    if counter is not None:
        for item in wanted:
            _number(item, counter)
    return counter


def _one_by_one(change: Change, inserts: Sequence[Insert]) -> int | None:
    counter: int | None = advance(
        change.model, where=change.where, put=change.put, add=change.add, returning=change.counter
    )
    if counter is None:
        return None
    for item in inserts:
        _number(item, counter)
        insert(item.rows, on_conflict=item.on_conflict)
    for update in change.updates:
        update.model._default_manager.filter(**update.where).update(**update.put)
    return counter


def _number(item: Insert, counter: int) -> None:
    if item.numbered:
        for number, row in enumerate(item.rows, start=counter - len(item.rows) + 1):
            setattr(row, item.numbered, number)


def _at_once(change: Change, inserts: Sequence[Insert]) -> int | None:
    sql = _sql(
        change.model, tuple(change.where), tuple(change.put), tuple(change.add), change.counter,
        tuple((type(item.rows[0]), len(item.rows), item.on_conflict, item.numbered) for item in inserts),
        tuple((update.model, tuple(update.where), tuple(update.put)) for update in change.updates),
    )  # fmt: skip
    values = _values(change.model, change.put, change.add, change.where)
    for item in inserts:
        if item.numbered:
            # A placeholder until the database knows the counter; the statement adds it.
            _number(item, 0)
        fields = columns(type(item.rows[0]))
        values += [
            field.get_db_prep_save(getattr(row, field.attname), connection) for row in item.rows for field in fields
        ]
    for update in change.updates:
        values += _values(update.model, update.put, update.where)
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        found = cursor.fetchone()
    return found[0] if found else None


def _values(model: type[models.Model], *parts: Mapping[str, Any]) -> list[Any]:
    fields = {name: field for field in model._meta.concrete_fields for name in (field.name, field.attname)}
    return [fields[name].get_db_prep_save(value, connection) for part in parts for name, value in part.items()]


@lru_cache(maxsize=512)
def _sql(  # noqa: PLR0917  # the cache's key, in the order of the text
    model: type[models.Model], where: tuple[str, ...], put: tuple[str, ...], add: tuple[str, ...], counter: str,
    inserts: tuple[tuple[type[models.Model], int, OnConflict, str], ...],
    updates: tuple[tuple[type[models.Model], tuple[str, ...], tuple[str, ...]], ...],
) -> str:  # fmt: skip
    # Only names of our own models are put into the text; every value is a parameter.
    column = _names(model)
    changes = [f"{column[name]} = %s" for name in put] + [f"{column[name]} = {column[name]} + %s" for name in add]
    conditions = " AND ".join(f"{column[name]} = %s" for name in where)
    parts = [
        f"changed AS (UPDATE {_table(model)} SET {', '.join(changes)} WHERE {conditions} "  # noqa: S608
        f"RETURNING {column[counter]} AS counter)"
    ]
    parts += [f"i{number} AS ({_insert(*item)})" for number, item in enumerate(inserts)]
    parts += [f"u{number} AS ({_update(*item)})" for number, item in enumerate(updates)]
    return f"WITH {', '.join(parts)} SELECT counter FROM changed"  # noqa: S608


def _insert(model: type[models.Model], rows: int, on_conflict: OnConflict, numbered: str) -> str:
    fields = columns(model)
    names = [connection.ops.quote_name(str(field.column)) for field in fields]
    first = ", ".join(f"%s::{_type(field)}" for field in fields)
    others = ", ".join(["%s"] * len(fields))
    values = ", ".join([f"({first})", *[f"({others})"] * (rows - 1)])
    taken = ", ".join(
        f"changed.counter + given.{name}" if field.name == numbered else f"given.{name}"
        for field, name in zip(fields, names, strict=True)
    )
    sql = (
        f"INSERT INTO {_table(model)} ({', '.join(names)}) SELECT {taken} "  # noqa: S608
        f"FROM changed CROSS JOIN (VALUES {values}) AS given ({', '.join(names)})"
    )
    return sql + conflict(model, on_conflict)


def _update(model: type[models.Model], where: tuple[str, ...], put: tuple[str, ...]) -> str:
    column = _names(model)
    changes = ", ".join(f"{column[name]} = %s" for name in put)
    conditions = " AND ".join(f"{column[name]} = %s" for name in where)
    return f"UPDATE {_table(model)} SET {changes} WHERE {conditions} AND EXISTS (SELECT 1 FROM changed)"  # noqa: S608


def _type(field: models.Field[Any, Any]) -> str:
    # Without its length: a cast to a length cuts silently, where the column itself refuses.
    return str(field.db_type(connection)).partition("(")[0]


def _names(model: type[models.Model]) -> dict[str, str]:
    # Foreign keys go by their field's name and by their column's.
    return {
        name: connection.ops.quote_name(str(field.column))
        for field in model._meta.concrete_fields
        for name in (field.name, field.attname)
    }


def _table(model: type[models.Model]) -> str:
    return connection.ops.quote_name(model._meta.db_table)
