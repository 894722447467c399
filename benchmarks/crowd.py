"""A process full of idle volunteers: `python -m benchmarks.crowd URL MODEL BLOCKS AT_ONCE < tokens`.

Reads one token a line, joins with a volunteer for each, says how many serve when all do, and keeps them alive
until it is ended. Does not know what is measured.
"""

import asyncio
import os
import sys

import uvloop

from benchmarks.plain_peer import Card, PlainPeer, connect, facts

BLOCKS_EACH = 4


async def crowd(url: str, model: str, blocks: int, at_once: int, tokens: list[str]) -> None:
    peers: list[PlainPeer] = []
    gate = asyncio.Semaphore(at_once)

    async def join(number: int, token: str) -> None:
        start = number * BLOCKS_EACH % blocks
        card = Card(token, f"idle {number}", facts(model, blocks), (start, start + BLOCKS_EACH))
        async with gate:
            peers.append(await connect(url, card))

    await asyncio.gather(*(join(number, token) for number, token in enumerate(tokens)))
    print(f"{len(peers)} serve", flush=True)
    gone, _ = await asyncio.wait({peer.lost for peer in peers}, return_when=asyncio.FIRST_COMPLETED)
    sys.exit(f"{len(gone)} of them are gone: {gone.pop().result()}")


def _give_way() -> None:
    """What is measured goes first: at once where the system can, and not only after a share of the time."""
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


def main() -> int:
    url, model, blocks, at_once = sys.argv[1:]
    _give_way()
    uvloop.run(crowd(url, model, int(blocks), int(at_once), sys.stdin.read().split()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
