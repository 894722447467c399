"""`python -m relay migrate`: bring the database to this relay's schema. Run once before each release."""

import argparse
import asyncio

from relay.commands.base import explain
from relay.migrate import render_sql, upgrade
from relay.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sql", action="store_true", help="change nothing: print the SQL that builds it from nothing"
    )
    parser.set_defaults(run=_migrate)


def _migrate(settings: Settings, arguments: argparse.Namespace) -> int:
    if arguments.sql:
        print(render_sql(settings.database_url), end="")
        return 0
    revision = asyncio.run(upgrade(settings.database_url))
    explain(f"The database is at revision {revision}.")
    return 0
