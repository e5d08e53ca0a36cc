"""Rows whose columns equal given values, by a statement that is compiled once.

Django's ORM compiles a query anew each time, which takes longer than PostgreSQL needs to answer it; this is for the
few questions that every request and every claim of a run asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from django.db import connection, models

from operators.models.statements import named

M = TypeVar("M", bound=models.Model)


@dataclass(frozen=True)
class _Part:
    """One model of a statement: where its columns lie in a row, and the attribute of an earlier part that it is."""

    model: type[models.Model]
    start: int
    owner: int = 0
    attribute: str = ""

    @property
    def fields(self) -> list[models.Field[Any, Any]]:
        return list(self.model._meta.concrete_fields)


@dataclass(frozen=True)
class _Statement:
    sql: str
    parts: list[_Part]
    names: list[list[str]]
    converters: list[tuple[int, Any, Any]]


def look_up(model: type[M], *related: str, **where: Any) -> M | None:
    """Return the row whose columns equal `where`, the first one in the model's order, or None.

    `related` names foreign keys that are never null, such as `operator__project` after `operator`; what they point at
    is there without a further query.
    """
    order = (*map(str, model._meta.ordering or ()), "pk")
    found = _asked(_statement(model, related, tuple(where), order, 1, connection.vendor), where)
    return found[0] if found else None


def listed(model: type[M], *related: str, order: Sequence[str], most: int = 0, **where: Any) -> list[M]:
    """Return the rows whose columns equal `where`, in this order, at most so many if a number is given."""
    return _asked(_statement(model, related, tuple(where), tuple(order), most, connection.vendor), where)


def _asked(statement: _Statement, where: Mapping[str, Any]) -> list[Any]:
    fields = named(statement.parts[0].model)
    values = [fields[name].get_db_prep_value(value, connection) for name, value in where.items()]
    with connection.cursor() as cursor:
        cursor.execute(statement.sql, values)
        return [_built(statement, list(row)) for row in cursor.fetchall()]


def _built(statement: _Statement, row: list[Any]) -> Any:
    for position, convert, column in statement.converters:
        row[position] = convert(row[position], column, connection)
    built: list[models.Model] = []
    for part, names in zip(statement.parts, statement.names, strict=True):
        instance = part.model.from_db(connection.alias, names, row[part.start : part.start + len(names)])
        if part.attribute:
            setattr(built[part.owner], part.attribute, instance)
        built.append(instance)
    return built[0]


@lru_cache(maxsize=64)
def _statement(  # the cache's key
    model: type[models.Model],
    related: tuple[str, ...],
    where: tuple[str, ...],
    order: tuple[str, ...],
    most: int,
    _vendor: str,
) -> _Statement:
    parts, joins = _joined(model, related)
    columns = ", ".join(f"t{number}.{_column(field)}" for number, part in enumerate(parts) for field in part.fields)
    fields = named(model)
    condition = " AND ".join(f"t0.{_column(fields[name])} = %s" for name in where)
    listed_by = ", ".join(_order(model, item) for item in order) + (f" LIMIT {most}" if most else "")
    # Only names of our own models are put into the text; every value is a parameter.
    sql = f"SELECT {columns} FROM {_table(model)} t0{joins} WHERE {condition} ORDER BY {listed_by}"  # noqa: S608
    names = [[field.attname for field in part.fields] for part in parts]
    return _Statement(sql, parts, names, list(_converters(parts)))


def _joined(model: type[models.Model], related: tuple[str, ...]) -> tuple[list[_Part], str]:
    parts, joins, places = [_Part(model, 0)], "", {"": 0}
    for path in related:
        before, _, attribute = path.rpartition("__")
        owner = places[before]
        key: Any = parts[owner].model._meta.get_field(attribute)
        target: type[models.Model] = key.related_model
        alias = f"t{len(parts)}"
        joins += f" JOIN {_table(target)} {alias} ON {alias}.{_column(target._meta.pk)} = t{owner}.{_column(key)}"
        places[path] = len(parts)
        parts.append(_Part(target, parts[-1].start + len(parts[-1].fields), owner, attribute))
    return parts, joins


def _order(model: type[models.Model], item: str) -> str:
    name, descending = item.removeprefix("-"), item.startswith("-")
    field = model._meta.pk if name == "pk" else named(model)[name]
    return f"t0.{_column(field)}{' DESC' if descending else ''}"


def _column(field: models.Field[Any, Any] | None) -> str:
    assert field is not None
    return connection.ops.quote_name(str(field.column))


def _table(model: type[models.Model]) -> str:
    return connection.ops.quote_name(model._meta.db_table)


def _converters(parts: list[_Part]) -> Iterator[tuple[int, Any, Any]]:
    for part in parts:
        for position, field in enumerate(part.fields, start=part.start):
            column = field.get_col(part.model._meta.db_table)
            for convert in (*connection.ops.get_db_converters(column), *column.get_db_converters(connection)):
                yield position, convert, column
