"""One step of one run in one statement: the run's row is changed under its claim, and what goes with it is written.

On PostgreSQL it is a single statement, hence a single round trip and, outside of a transaction, a commit of its own:
everything else selects from the row that the update changed, so that without that row nothing is written. The rows of a
table are one JSON parameter, so that the statement's text depends on neither their number nor their values, and is
planned once per connection. Elsewhere the same is done by a statement for each part, in a transaction.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any

import orjson
from django.db import connection, models, transaction

from operators.models.statements import OnConflict, advance, columns, conflict, insert, named

#: What the text of an insert depends on: the model, what to do on a conflict, and the field that is numbered.
Shape = tuple[type[models.Model], OnConflict, str]


@dataclass(frozen=True)
class Insert:
    """Rows of one model: objects with its columns as attributes.

    `numbered` names the field that gets consecutive numbers, the last one being the counter's.
    """

    model: type[models.Model]
    rows: Sequence[Any]
    on_conflict: OnConflict = "fail"
    numbered: str = ""


@dataclass(frozen=True)
class Update:
    """A change of every row of a model whose fields equal `where`."""

    model: type[models.Model]
    where: Mapping[str, Any]
    put: Mapping[str, Any]


@dataclass(frozen=True)
class Given:
    """That there is a row of a model whose fields equal `where`."""

    model: type[models.Model]
    where: Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """The change of the one row that everything hangs on: see `advance`.

    `given` is looked at as the statement began. It counts where whoever makes it untrue changes the row, too, so that
    `where` no longer fits.
    """

    model: type[models.Model]
    where: Mapping[str, Any]
    put: Mapping[str, Any]
    add: Mapping[str, Any]
    counter: str
    inserts: Sequence[Insert] = field(default=())
    updates: Sequence[Update] = field(default=())
    given: Given | None = None


def strike(change: Change) -> int | None:
    """Do it all and return the counter's new value, or None, and then nothing was written.

    Rows that are numbered bear their numbers afterwards.
    """
    wanted = [item for item in change.inserts if item.rows]
    with _whole():
        counter = _at_once(change, wanted) if connection.vendor == "postgresql" else _one_by_one(change, wanted)
    if counter is not None:
        for item in wanted:
            _number(item, counter)
    return counter


def enter(row: models.Model, *, counter: str, inserts: Sequence[Insert], given: Given) -> bool:
    """Write a new row, and what goes with it: on PostgreSQL in one statement. Raises `IntegrityError` like `save()`.

    `counter` names the field of the row that holds the number of the last of the rows that are numbered. What is
    `given` stays so until the transaction's end, where whoever makes it untrue has locked it for an update. If it is
    untrue already nothing is written: False.
    """
    wanted = [item for item in inserts if item.rows]
    with _whole():
        if connection.vendor == "postgresql":
            sql = _entry_sql(type(row), counter, _shapes(wanted), (given.model, tuple(given.where)))
            values = [_json(type(row), [row]), *_values(given.model, given.where)]
            values += [_json(item.model, item.rows) for item in _unnumbered(wanted)]
            with connection.cursor() as cursor:
                cursor.execute(sql, values)
                if cursor.fetchone() is None:
                    return False
        else:
            if not _is(given):
                return False
            row.save(force_insert=True)
            for item in wanted:
                _number(item, getattr(row, counter))
                insert(item.model, item.rows, on_conflict=item.on_conflict)
    for item in wanted:
        _number(item, getattr(row, counter))
    return True


def _whole() -> AbstractContextManager[object]:
    """Hold what undoes all of it if a part fails, also where the caller goes on with a transaction of his own."""
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        return nullcontext()
    return transaction.atomic()


def _one_by_one(change: Change, inserts: Sequence[Insert]) -> int | None:
    if change.given and not _is(change.given):
        return None
    counter: int | None = advance(
        change.model, where=change.where, put=change.put, add=change.add, returning=change.counter
    )
    if counter is None:
        return None
    for item in inserts:
        _number(item, counter)
        insert(item.model, item.rows, on_conflict=item.on_conflict)
    for update in change.updates:
        update.model._default_manager.filter(**update.where).update(**update.put)
    return counter


def _is(given: Given) -> bool:
    return given.model._default_manager.filter(**given.where).exists()


def _number(item: Insert, counter: int) -> None:
    if item.numbered:
        for number, row in enumerate(item.rows, start=counter - len(item.rows) + 1):
            setattr(row, item.numbered, number)


def _at_once(change: Change, inserts: Sequence[Insert]) -> int | None:
    sql = _sql(
        change.model, tuple(change.where), tuple(change.put), tuple(change.add), change.counter,
        _shapes(inserts),
        tuple((update.model, tuple(update.where), tuple(update.put)) for update in change.updates),
        (change.given.model, tuple(change.given.where)) if change.given else None,
    )  # fmt: skip
    values = _values(change.model, change.put, change.add, change.where)
    values += _values(change.given.model, change.given.where) if change.given else []
    values += [_json(item.model, item.rows) for item in _unnumbered(inserts)]
    for update in change.updates:
        values += _values(update.model, update.put, update.where)
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        found = cursor.fetchone()
    return found[0] if found else None


def _shapes(inserts: Sequence[Insert]) -> tuple[Shape, ...]:
    return tuple((item.model, item.on_conflict, item.numbered) for item in inserts)


def _unnumbered(inserts: Sequence[Insert]) -> Sequence[Insert]:
    # Placeholders until the database knows the counter; the statement adds it.
    for item in inserts:
        _number(item, 0)
    return inserts


def _values(model: type[models.Model], *parts: Mapping[str, Any]) -> list[Any]:
    fields = named(model)
    return [fields[name].get_db_prep_save(value, connection) for part in parts for name, value in part.items()]


@lru_cache(maxsize=512)
def _sql(  # noqa: PLR0917  # the cache's key, in the order of the text
    model: type[models.Model], where: tuple[str, ...], put: tuple[str, ...], add: tuple[str, ...], counter: str,
    inserts: tuple[Shape, ...],
    updates: tuple[tuple[type[models.Model], tuple[str, ...], tuple[str, ...]], ...],
    given: tuple[type[models.Model], tuple[str, ...]] | None,
) -> str:  # fmt: skip
    # Only names of our own models are put into the text; every value is a parameter.
    column = _names(model)
    changes = [f"{column[name]} = %s" for name in put] + [f"{column[name]} = {column[name]} + %s" for name in add]
    conditions = " AND ".join(f"{column[name]} = %s" for name in where)
    if given:
        conditions += f" AND EXISTS ({_there(*given)})"
    parts = [
        f"changed AS (UPDATE {_table(model)} SET {', '.join(changes)} WHERE {conditions} "  # noqa: S608
        f"RETURNING {column[counter]} AS counter)"
    ]
    parts += [f"i{number} AS ({_insert(*item)})" for number, item in enumerate(inserts)]
    parts += [f"u{number} AS ({_update(*item)})" for number, item in enumerate(updates)]
    return f"WITH {', '.join(parts)} SELECT counter FROM changed"  # noqa: S608


@lru_cache(maxsize=64)
def _entry_sql(
    model: type[models.Model], counter: str, inserts: tuple[Shape, ...],
    given: tuple[type[models.Model], tuple[str, ...]],
) -> str:  # fmt: skip
    # The lock is that of a foreign key, which would ask for it anyway: it waits for who is about to take the row away.
    row = f"{_insertion(model, '', 'jsonb_to_recordset(%s::jsonb)')} WHERE EXISTS ({_there(*given)} FOR KEY SHARE)"
    row += f" RETURNING {_names(model)[counter]} AS counter"
    parts = [f"changed AS ({row})", *(f"i{number} AS ({_insert(*item)})" for number, item in enumerate(inserts))]
    return f"WITH {', '.join(parts)} SELECT counter FROM changed"  # noqa: S608


def _there(model: type[models.Model], where: tuple[str, ...]) -> str:
    column = _names(model)
    conditions = " AND ".join(f"{column[name]} = %s" for name in where)
    return f"SELECT 1 FROM {_table(model)} WHERE {conditions}"  # noqa: S608


def _insert(model: type[models.Model], on_conflict: OnConflict, numbered: str) -> str:
    return _insertion(model, numbered, "changed, jsonb_to_recordset(%s::jsonb)") + conflict(model, on_conflict)


def _insertion(model: type[models.Model], numbered: str, source: str) -> str:
    names = {field: connection.ops.quote_name(str(field.column)) for field in columns(model)}
    given = ", ".join(f"{name} {_type(field)}" for field, name in names.items())
    taken = ", ".join(_taken(field, f"given.{name}", numbered) for field, name in names.items())
    into = f"INSERT INTO {_table(model)} ({', '.join(names.values())})"
    return f"{into} SELECT {taken} FROM {source} AS given({given})"  # noqa: S608


def _taken(field: models.Field[Any, Any], given: str, numbered: str) -> str:
    if field.name == numbered:
        return f"changed.counter + {given}"
    return f"decode({given}, 'base64')" if isinstance(field, models.BinaryField) else given


def _json(model: type[models.Model], rows: Sequence[Any]) -> str:
    names, binary = _attributes(model)
    given = [{name: getattr(row, attribute) for name, attribute in names} for row in rows]
    for row in given:
        for name in binary:
            row[name] = b2a_base64(row[name], newline=False).decode("ascii")
    return orjson.dumps(given, default=_plain).decode()


def _plain(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no value of a column")


@cache
def _attributes(model: type[models.Model]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the columns and the attributes that hold their values, and which columns hold bytes."""
    fields = columns(model)
    names = [(str(field.column), field.attname) for field in fields]
    return names, [str(field.column) for field in fields if isinstance(field, models.BinaryField)]


def _update(model: type[models.Model], where: tuple[str, ...], put: tuple[str, ...]) -> str:
    column = _names(model)
    changes = ", ".join(f"{column[name]} = %s" for name in put)
    conditions = " AND ".join(f"{column[name]} = %s" for name in where)
    return f"UPDATE {_table(model)} SET {changes} WHERE {conditions} AND EXISTS (SELECT 1 FROM changed)"  # noqa: S608


def _type(field: models.Field[Any, Any]) -> str:
    # Without its length: a cast to a length cuts silently, where the column itself refuses. JSON bears no bytes.
    if isinstance(field, models.BinaryField):
        return "text"
    return str(field.db_type(connection)).partition("(")[0]


def _names(model: type[models.Model]) -> dict[str, str]:
    return {name: connection.ops.quote_name(str(field.column)) for name, field in named(model).items()}


def _table(model: type[models.Model]) -> str:
    return connection.ops.quote_name(model._meta.db_table)
