"""`python -m relay evidence ID`: a volunteer's score, and what was seen of it."""

import argparse
import time

import msgspec

from relay.commands.base import columns, explain, run_with_store, when
from relay.reports import report
from relay.reputation import HOUR, PRIOR_BAD, PRIOR_GOOD
from relay.settings import Settings
from relay.standings import KEEP_SECONDS
from schema.errors import NotFound
from schema.ids import PeerId, is_peer_id
from schema.swarm import EvidenceOfKind, VolunteerReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help="as `GET /api/swarm` and the logs show it: 16 hex digits")
    parser.add_argument("--json", action="store_true", help="print all of it, hour by hour, as JSON")
    parser.set_defaults(run=_show)


def _show(settings: Settings, arguments: argparse.Namespace) -> int:
    peer, now = PeerId(arguments.id), time.time()
    if not is_peer_id(peer):
        raise NotFound(f"{peer!r} is no volunteer's id: that has 16 hex digits, as GET /api/swarm shows them")
    evidence = run_with_store(settings, lambda store: store.evidence_of([peer], now - KEEP_SECONDS))
    if not evidence:
        raise NotFound(
            f"nothing was seen of a volunteer {peer} in {KEEP_SECONDS / HOUR / 24:g} days: GET /api/swarm "
            "shows who is there, by id; a relay writes down what it has seen twice a minute"
        )
    found = report(peer, evidence, now)
    if arguments.json:
        print(msgspec.json.encode(found).decode())
        return 0
    _print(found)
    return 0


def _print(found: VolunteerReport) -> None:
    rows = [_row(kind) for kind in found.kinds]
    rows.insert(0, ("(at first)", "-", f"{PRIOR_GOOD:.2f}", f"{PRIOR_BAD:.2f}", "-", "-", "-"))
    print(columns(("KIND", "COUNT", "FOR", "AGAINST", "WORST", "SINCE", "UNTIL"), rows))
    explain(f"Score {found.score:.3f} = {found.good:.2f} / ({found.good:.2f} + {found.bad:.2f})")


def _row(kind: EvidenceOfKind) -> tuple[str, ...]:
    worst = f"{kind.worst:.3g}" if isinstance(kind.worst, float) else "-"
    figures = (str(kind.count), f"{kind.good:.2f}", f"{kind.bad:.2f}", worst)
    return (kind.kind, *figures, when(kind.since), when(kind.until))
