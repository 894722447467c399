"""`python -m relay doctor`: is everything there that the relay stands on, and what to do if not."""

import argparse
import asyncio

import msgspec
from msgspec import Struct

from relay.doctor import Finding, examine
from relay.settings import Settings


class Examination(Struct, frozen=True):
    """What `--json` prints."""

    ok: bool
    checks: list[Finding]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON object")
    parser.set_defaults(run=_examine)


def _examine(settings: Settings, arguments: argparse.Namespace) -> int:
    findings = asyncio.run(examine(settings))
    result = Examination(all(finding.ok for finding in findings), findings)
    if arguments.json:
        print(msgspec.json.encode(result).decode())
    else:
        for finding in findings:
            print(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.name}: {finding.found}")
            if finding.remedy:
                print(f"       to do: {finding.remedy}")
    return 0 if result.ok else 1
