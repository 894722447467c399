"""The pages of `docs/` that are read off the code say what the code says now."""

import pytest

from scripts.reference import DOCS, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_page_is_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert (DOCS / name).read_text() == PAGES[name](), "run: python -m scripts.reference"
