"""Kernels of this project are used only where they compile and compute what they should."""

import pytest

from corolla.models import compiled
from corolla.models.compiled import can_be_used


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were installed."""
    monkeypatch.setattr(compiled, "find_spec", lambda name: name)


def fail() -> bool:
    raise RuntimeError("no compiler")


def test_without_triton_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "find_spec", lambda name: None)
    assert not can_be_used("4-bit layers", fail)


@pytest.mark.usefixtures("triton")
def test_what_computes_the_right_thing_is_used(caplog: pytest.LogCaptureFixture) -> None:
    assert can_be_used("4-bit layers", lambda: True)
    assert caplog.records == []


@pytest.mark.usefixtures("triton")
def test_what_computes_something_else_is_not_used_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert not can_be_used("8-bit layers", lambda: False)
    assert "8-bit layers stay bitsandbytes' own: what was compiled here" in caplog.text


@pytest.mark.usefixtures("triton")
def test_what_does_not_compile_is_not_used_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert not can_be_used("8-bit layers", fail)
    assert "Triton cannot be used here (no compiler)" in caplog.text
