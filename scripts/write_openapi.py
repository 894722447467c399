"""`scripts/openapi`: writes web/openapi.json anew from the relay's operations and their structs."""

import json
from pathlib import Path

from relay.openapi import document
from relay.operations import OPERATIONS

FILE = Path(__file__).resolve().parent.parent / "web/openapi.json"


def written() -> str:
    """The file as it is to be."""
    return json.dumps(document(OPERATIONS), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
