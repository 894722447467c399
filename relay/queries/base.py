"""What all queries stand on: the engine, and inserting in either database's way.

Does not know any table.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec
import orjson
from sqlalchemy import ARRAY, ColumnElement, String, any_, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.orm import InstrumentedAttribute

from relay.tables import Base
from schema.errors import InvalidRequest

_Where = ColumnElement[bool]
_LISTED = "listed"


class Queries:
    """Queries of one relay process on one engine. Any number of tasks may use them at once."""

    def __init__(self, engine: AsyncEngine, replica: str) -> None:
        self._engine = engine
        self._replica = replica


def insert_into(connection: AsyncConnection, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An insert that can say what happens on a conflict, which both databases spell alike."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def among(connection: AsyncConnection, column: InstrumentedAttribute[Any]) -> _Where:
    """Whether a text column is one of those that `listed` gives to the statement: one list for a statement.

    However many they are, they are one parameter. With a parameter for each, making the statement takes
    longer than running it, and their number is limited.
    """
    return _among(connection.dialect.name, column)


def listed(connection: AsyncConnection, values: Iterable[str]) -> dict[str, Any]:
    """The parameter of `among`."""
    every = list(values)
    return {_LISTED: every if connection.dialect.name == "postgresql" else orjson.dumps(every).decode()}


@cache
def _among(dialect: str, column: InstrumentedAttribute[Any]) -> _Where:
    """Made once: it takes SQLAlchemy a millisecond."""
    if dialect == "postgresql":
        return column == any_(bindparam(_LISTED, type_=ARRAY(String)))
    given = func.json_each(bindparam(_LISTED, type_=String)).table_valued("value")
    return column.in_(select(given.c.value))


def checked_name(value: str, kind: Any, what: str) -> str:
    """A name within the limits of a type of schema/messages.py. Raises InvalidRequest."""
    try:
        return msgspec.convert(value.strip(), kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{what} cannot be {value!r}: {error}") from error
