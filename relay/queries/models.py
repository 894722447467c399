"""The models that the swarm serves, and what volunteers have reported of them.

Does not know which of them are complete: that is for relay/swarm.py.
"""

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from relay.database import reading, writing, writing_alone
from relay.queries.base import Queries, checked_name, insert_into
from relay.records import ModelRecord
from relay.tables import Model
from schema.errors import InvalidRequest, JoinRefused, NotFound
from schema.messages import ModelFacts, ModelName

_FACTS = ("digest", "family", "blocks", "hidden_size", "parameters", "context")
"""Fields of ModelFacts, beside the name, and columns."""


class ModelQueries(Queries):
    """The table `models`."""

    async def seed_models(self, names: Sequence[str]) -> None:
        """Make the models that come from `MODELS` be `names`, in their order; added ones stay as they are."""
        async with writing_alone(self._engine) as connection:
            gone = Model.from_settings & Model.name.not_in(names)
            await connection.execute(delete(Model).where(gone))
            for position, name in enumerate(names):
                await _put_model(connection, name, position, from_settings=True)

    async def add_model(self, name: str) -> bool:
        """Serve one more model, after those served already. Whether it is new.

        Raises:
            InvalidRequest: not a model's name.
        """
        name = checked_name(name, ModelName, "a model's name")
        async with writing_alone(self._engine) as connection:
            served = await connection.scalar(select(func.count()).where(Model.name == name))
            if not served:
                last = await connection.scalar(select(func.max(Model.position)))
                await _put_model(connection, name, (last or 0) + 1, from_settings=False)
        return not served

    async def remove_model(self, name: str) -> None:
        """Serve a model no longer.

        Raises:
            NotFound: it is not served.
            InvalidRequest: it is listed in `MODELS`, and would come back.
        """
        async with writing(self._engine) as connection:
            removed = await connection.execute(
                delete(Model).where(Model.name == name).returning(Model.from_settings)
            )
            from_settings = removed.scalar_one_or_none()
            if from_settings is None:
                raise _unknown(name)
            if from_settings:  # raising undoes the deletion
                raise InvalidRequest(
                    f"{name!r} is listed in MODELS: take it out there and start the relay again"
                )

    async def list_models(self) -> list[ModelRecord]:
        """The models that the swarm serves, the most important first."""
        async with reading(self._engine) as connection:
            order = (Model.from_settings.desc(), Model.position, Model.name)
            return [_record(row) for row in await connection.execute(select(Model).order_by(*order))]

    async def record_facts(self, facts: ModelFacts, reported_by: str) -> None:
        """Keep the first report of a model's facts; a later one must agree with it.

        Raises:
            JoinRefused: the model is not served, or its facts were reported differently before.
        """
        values = {name: getattr(facts, name) for name in _FACTS} | {"reported_by": reported_by}
        first = update(Model).where(Model.name == facts.name, Model.digest.is_(None)).values(values)
        async with writing(self._engine) as connection:
            await connection.execute(first)
            query = select(Model.digest, Model.reported_by).where(Model.name == facts.name)
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise JoinRefused(
                f"this swarm does not serve {facts.name!r}: its operator can run "
                f"`python -m relay model add {facts.name}`"
            )
        if row.digest != facts.digest:
            raise JoinRefused(
                f"this checkpoint of {facts.name!r} has digest {facts.digest}, but the swarm runs "
                f"{row.digest}, reported by {row.reported_by}: fetch that one, or, if it is this one that "
                f"is right, the operator runs `python -m relay model forget {facts.name}`"
            )

    async def forget_model_facts(self, name: str) -> None:
        """Let the next volunteer report a model's facts anew.

        Raises:
            NotFound: it is not served.
        """
        nothing = dict.fromkeys([*_FACTS, "reported_by"])
        async with writing(self._engine) as connection:
            changed = await connection.execute(update(Model).where(Model.name == name).values(nothing))
        if not changed.rowcount:
            raise _unknown(name)


async def _put_model(connection: AsyncConnection, name: str, position: int, *, from_settings: bool) -> None:
    place = {"position": position, "from_settings": from_settings}
    insert = insert_into(connection, Model).values(name=name, added_at=time.time(), **place)
    await connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=place))


def _record(row: Row[Any]) -> ModelRecord:
    facts = None
    if row.digest is not None:
        facts = ModelFacts(name=row.name, **{name: getattr(row, name) for name in _FACTS})
    return ModelRecord(
        name=row.name,
        from_settings=row.from_settings,
        added_at=row.added_at,
        facts=facts,
        reported_by=row.reported_by,
    )


def _unknown(name: str) -> NotFound:
    return NotFound(f"the swarm does not serve {name!r}: `python -m relay model list` shows what it serves")
