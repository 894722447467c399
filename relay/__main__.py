"""`python -m relay`: the operator's command line.

Exit codes: 0 done, 1 refused (standard error says why and what to do), 2 wrong usage or settings.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from relay.commands import doctor, evidence, migrate, models, quarantine, serve, tokens
from relay.commands.base import explain
from relay.errors import OperatorError, SettingsError
from relay.settings import Settings
from schema.errors import CorollaError

_COMMANDS = {
    "serve": (serve.add_arguments, "run the relay (what happens without a command)"),
    "migrate": (migrate.add_arguments, "bring the database to this version's schema"),
    "token": (tokens.add_arguments, "make, list and revoke tokens"),
    "doctor": (doctor.add_arguments, "check what the relay stands on, and say what to do"),
    "evidence": (evidence.add_arguments, "show a volunteer's score, and what was seen of it"),
    "quarantine": (quarantine.add_arguments, "keep a volunteer out of routes"),
    "restore": (quarantine.add_restore_arguments, "let a volunteer be in routes again"),
    "model": (models.add_arguments, "choose the models that the swarm serves"),
}


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one command; its exit code. Wrong usage raises SystemExit(2), as argparse does."""
    chosen = _parser().parse_args(arguments or ["serve"])
    try:
        return chosen.run(Settings.from_environment(environment), chosen)
    except SettingsError as error:
        explain(f"error: {error}")
        return 2
    except OperatorError as error:
        explain(f"error: {error}")
    except CorollaError as error:
        explain(f"error: {error.message}")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m relay",
        description="The relay of a Corolla swarm. Its settings come from the environment.",
    )
    commands = parser.add_subparsers(metavar="command", required=True)
    for name, (add_arguments, meaning) in _COMMANDS.items():
        add_arguments(commands.add_parser(name, help=meaning, description=meaning.capitalize() + "."))
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
