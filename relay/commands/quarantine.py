"""`python -m relay quarantine ID --reason …` and `restore`: keeping a volunteer out of routes."""

import argparse
import time

from relay.commands.base import explain, run_with_store
from relay.records import QuarantineRecord
from relay.settings import Settings
from relay.store import Store
from schema.errors import NotFound
from schema.ids import PeerId, is_peer_id


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.set_defaults(run=_quarantine)


def add_restore_arguments(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.set_defaults(run=_restore)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help="as `GET /api/swarm` and the logs show it: 16 hex digits")
    parser.add_argument("--reason", required=True, help="why; kept, and told to the volunteer's owner")


def _quarantine(settings: Settings, arguments: argparse.Namespace) -> int:
    peer, reason = _read(arguments)

    async def put(store: Store) -> QuarantineRecord:
        if not await store.has_seen(peer):
            raise NotFound(
                f"nothing is known of a volunteer {peer}: GET /api/swarm shows who is there, by id"
            )
        return await store.quarantine(peer, reason, None, time.time())

    run_with_store(settings, put)
    explain(f"The volunteer {peer} is in no new routes within seconds. A restarted one has a new id: to keep")
    explain("its owner out, revoke the token (`GET /api/admin/volunteers` shows which it is).")
    return 0


def _restore(settings: Settings, arguments: argparse.Namespace) -> int:
    peer, reason = _read(arguments)
    run_with_store(settings, lambda store: store.restore(peer, reason, None, time.time()))
    explain(f"The volunteer {peer} is in routes again within seconds.")
    return 0


def _read(arguments: argparse.Namespace) -> tuple[PeerId, str]:
    peer = PeerId(arguments.id)
    if not is_peer_id(peer):
        raise NotFound(f"{peer!r} is no volunteer's id: that has 16 hex digits, as GET /api/swarm shows them")
    return peer, arguments.reason
