"""What all queries stand on: the engine, and inserting in either database's way.

Does not know any table.
"""

from typing import Any

import msgspec
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from relay.tables import Base
from schema.errors import InvalidRequest


class Queries:
    """Queries of one relay process on one engine. Any number of tasks may use them at once."""

    def __init__(self, engine: AsyncEngine, replica: str) -> None:
        self._engine = engine
        self._replica = replica


def insert_into(connection: AsyncConnection, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An insert that can say what happens on a conflict, which both databases spell alike."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def checked_name(value: str, kind: Any, what: str) -> str:
    """A name within the limits of a type of schema/messages.py. Raises InvalidRequest."""
    try:
        return msgspec.convert(value.strip(), kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{what} cannot be {value!r}: {error}") from error
