"""`corolla models` and `corolla swarm`: what is served, who holds which blocks, and what is missing.

Pure but for the two commands: a status in, tables out.
"""

import argparse
from collections.abc import Mapping

import msgspec
from msgspec import UNSET

from corolla.cli.exits import ExitCode
from corolla.cli.relay import Relay
from corolla.cli.replies import as_line, decode
from corolla.cli.terminal import Console, columns
from schema.swarm import ModelStatus, SwarmStatus, VolunteerStatus

NOTHING = "-"
_NUMBERS = ("LAYERS", "CONTEXT", "HEADS", "SESSIONS", "BLOCKS/S", "SCORE")


def models(
    relay: Relay, arguments: argparse.Namespace, console: Console, environment: Mapping[str, str]
) -> int:
    """Show the models. Raises CommandError."""
    raw = relay.get("/api/swarm")
    if arguments.json:
        status = decode(raw, dict[str, msgspec.Raw])
        console.line(as_line(msgspec.json.encode({"models": status.get("models", [])})))
    else:
        console.line(models_table(decode(raw, SwarmStatus).models))
    return ExitCode.DONE


def swarm(
    relay: Relay, arguments: argparse.Namespace, console: Console, environment: Mapping[str, str]
) -> int:
    """Show models and volunteers. Raises CommandError."""
    raw = relay.get("/api/swarm")
    if arguments.json:
        console.line(as_line(raw))
    else:
        status = decode(raw, SwarmStatus)
        console.line(f"{models_table(status.models)}\n\n{volunteers_table(status.volunteers)}")
    return ExitCode.DONE


def models_table(models: list[ModelStatus]) -> str:
    """A row for each model."""
    if not models:
        return "The swarm has no models."
    rows = [
        (
            model.id,
            "yes" if model.complete else "no",
            _number(model.blocks),
            _number(model.context),
            str(model.heads),
            "" if model.complete else model.reason or NOTHING,
        )
        for model in models
    ]
    return columns(("MODEL", "SERVED", "LAYERS", "CONTEXT", "HEADS", "WHY NOT"), rows, _NUMBERS)


def volunteers_table(volunteers: list[VolunteerStatus]) -> str:
    """A row for each volunteer, in the order of what they hold."""
    if not volunteers:
        return "Nobody is there."
    ordered = sorted(
        volunteers, key=lambda one: (one.model or "\uffff", one.start or 0, one.end or 0, one.name)
    )
    heading = ("NAME", "STATE", "MODEL", "BLOCKS", "HEAD", "DEVICE", "DTYPE", "SESSIONS", "BLOCKS/S", "SCORE")
    return columns(heading, [_row(one) for one in ordered], _NUMBERS)


def _row(one: VolunteerStatus) -> tuple[str, ...]:
    is_underway = one.total > 0 and one.done < one.total
    speed, score = one.blocks_per_second, one.score
    return (
        one.name,
        f"{one.state} {100 * one.done // one.total}%" if is_underway else one.state,
        one.model or NOTHING,
        NOTHING if one.start is None or one.end is None else f"{one.start}-{one.end - 1}",
        "yes" if one.head else "",
        one.device,
        one.dtype or NOTHING,
        str(one.sessions),
        NOTHING if speed is UNSET else f"{speed:.1f}",
        NOTHING if score is UNSET else f"{score:.2f}",
    )


def _number(value: int | None) -> str:
    return NOTHING if value is None else str(value)
