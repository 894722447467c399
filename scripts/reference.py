"""Writes the pages of `docs/` that are read off the code: `python -m scripts.reference`.

Settings of the relay, options of the volunteer, and the families of models that are served. A test
fails when a page is not what this would write.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from corolla.models.families import FAMILIES, REFUSED
from relay.settings import Settings
from volunteer.config import command_line
from volunteer.drift import FACTOR, RECENT_RUNS
from volunteer.loop_turns import AWAKE_SECONDS
from volunteer.measuring import BATCHES, CONTEXTS, PARTS, TABLE_SECONDS
from volunteer.node import DRAIN_SECONDS
from volunteer.pausing import BUSY_SECONDS, QUIET_SECONDS

DOCS = Path(__file__).resolve().parent.parent / "docs"
PROXIES = (
    "| `FORWARDED_ALLOW_IPS` | `127.0.0.1` | Addresses of proxies whose `X-Forwarded-For` is believed, with "
    "commas between them: by it people who are not signed in are told apart. uvicorn reads it. |"
)


def settings_page() -> str:
    return f"""# Settings

*Written by `python -m scripts.reference`; change the code, not this page.*

## The relay

Environment variables of `python -m relay` (and of its commands). A value that cannot be used ends it
with exit code 2 and a sentence that names variable, value and remedy.

{Settings.documentation()}
{PROXIES}

## A volunteer

Flags of `python -m volunteer`. `COROLLA_TOKEN`, `COROLLA_RELAY`, `COROLLA_NAME`, `COROLLA_MAX_BLOCKS`,
`COROLLA_THREADS` and `COROLLA_CACHE` stand for the flags of their names; a flag goes first.

```
{command_line().format_help().strip()}
```

Signals, for its process id: SIGINT and SIGTERM leave, once everything that is served has ended or
after {DRAIN_SECONDS:g} s; a second one ends it at once. SIGUSR1 pauses: no new sessions or replies, but
those that exist are served to their end. SIGUSR2 resumes.

With `--pause-when-busy` it pauses when other programs have used more than the limit for
{BUSY_SECONDS:g} s, and resumes when they have not for {QUIET_SECONDS:g} s. CPU time of other volunteers here
does not count. SIGUSR1 goes before load; SIGUSR2 ends either pause. A GPU's load is read with
nvidia-ml-py, if it is installed, while the volunteer itself leaves the GPU alone.

With a GPU, a core of the processor is kept busy while the GPU computes, and between the tokens of a
reply whose next step comes back within {1000 * AWAKE_SECONDS:g} ms: where all volunteers are near.

How fast it computes is measured, in about {TABLE_SECONDS:g} s of the device at most. One sequence's decode
steps go first, before it serves, since the relay is told that figure. Batches of up to {BATCHES[-1]}
sequences, contexts of {_listed(CONTEXTS)} tokens and parts of prompts of {_listed(PARTS)}
tokens follow while nothing is served; what does not fit or takes too long is left out. The figures
are kept in the cache folder, for this device, model, form and length of the span and for the
versions that measured, and used at the next start. When the median of {RECENT_RUNS} real batches of a
size is off by a factor of {FACTOR:g}, all is measured again, while nothing is served. `--measure` prints
the figures, without a relay: to see whether a machine is worth connecting.
"""


def _listed(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def families_page() -> str:
    rows = "\n".join(
        f"| `{name}` | {_yes(family.can_roll_back)} | {_yes(family.can_chunk_prefill)} "
        f"| {family.batching.value} |"
        for name, family in sorted(FAMILIES.items())
    )
    refused = "\n".join(f"| `{name}` | {reason} |" for name, reason in sorted(REFUSED.items()))
    return f"""# Model families

*Written by `python -m scripts.reference`; change the code, not this page.*

A family is served only if `tests/volunteer/test_families.py` has shown, with random tiny weights in
fp32 on a CPU, that a chain of two and of three spans gives what the whole model gives: the prompt and
16 greedy steps, bit for bit. Names are transformers' `model_type`. Anything else is refused by name,
with what to do to add it.

- *Can roll back*: a session's cache can forget its last tokens, so that others can follow without a new
  beginning. A recurrent state cannot.
- *Prefill in chunks*: a long prompt is computed a part at a time, with tokens of other replies in between.
- *Ragged*: several replies are computed at once, each with its own length; nothing is filled up or copied.
- *Padded*: several replies are computed at once, shorter ones filled up to the longest, which costs a copy.
- *One by one*: replies take turns, and each is computed alone.

{len(FAMILIES)} families:

| `model_type` | can roll back | prefill in chunks | several replies at once |
|---|---|---|
{rows}

Refused, because they are known not to work:

| `model_type` | why |
|---|---|
{refused}
"""


def _yes(value: bool) -> str:
    return "yes" if value else "no"


PAGES = {"settings.md": settings_page, "families.md": families_page}


def main() -> int:
    os.environ["COLUMNS"] = "100"  # argparse wraps its help to it
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
