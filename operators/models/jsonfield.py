"""JSON as the database gives it back, in numbers that can be told again."""

from __future__ import annotations

from typing import Any

import orjson
from django.db import models
from django.db.models.fields.json import KeyTransform


class JSONField(models.JSONField):
    """Django's field, which reads a number of over 64 bits as the float that it was.

    PostgreSQL writes the float 1e30 as an integer of 31 digits, which `orjson` reads as 1e30, and would not write.
    """

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return what the database's text says."""
        if value is None or (isinstance(expression, KeyTransform) and not isinstance(value, str)):
            return value
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            # What only Python's own reader takes, such as halves of surrogate pairs.
            return super().from_db_value(value, expression, connection)

    def deconstruct(self) -> Any:
        """Say that it is Django's: for the database there is no difference."""
        name, _, arguments, options = super().deconstruct()
        return name, "django.db.models.JSONField", arguments, options
