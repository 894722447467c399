"""Chromium, for the tests of the pages, their pictures and their figures: where it is, and how it is started.

Does not know what is done with it.
"""

import os
import shutil
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class NoBrowser(Exception):
    """There is no Chromium here."""


def find_chromium(playwrights_own: str) -> str:
    """Its path: `CHROMIUM`, or the distribution's, or what `playwright install` has fetched.

    Raises:
        NoBrowser: where it was looked for.
    """
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is not None:
        return found
    if Path(playwrights_own).exists():
        return playwrights_own
    raise NoBrowser(
        f"no Chromium here: CHROMIUM is not set, none of {', '.join(NAMES)} is on PATH, "
        "and Playwright has none of its own"
    )
