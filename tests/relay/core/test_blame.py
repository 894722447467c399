"""relay/blame.py: whose fault it is."""

import pytest

from relay.blame import Departure, of_departure, of_failure, of_refusal
from schema.errors import (
    CorollaError,
    FrameRefused,
    JoinRefused,
    MalformedFrame,
    PeerGone,
    QueueFull,
    Replaced,
    RouteExpired,
    RouteForged,
    Unauthorized,
    Unavailable,
    Unresponsive,
    UnsupportedVersion,
    WrongHop,
    all_errors,
)
from schema.swarm import EvidenceKind


@pytest.mark.parametrize(
    ("departure", "kind"),
    [
        (Departure(None, broken=2), "vanished"),
        (Departure(None, broken=0), None),
        (Departure(None, broken=2, was_draining=True), None),
        (Departure(None, broken=2, relay_stops=True), None),
        (Departure(Unresponsive("silent"), broken=1), "vanished"),
        (Departure(Unresponsive("silent"), broken=0), "silent"),
        (Departure(Replaced("again"), broken=1), "vanished"),
        (Departure(Replaced("again"), broken=0), None),
        (Departure(MalformedFrame("?"), broken=0), "malformed"),
        (Departure(MalformedFrame("?"), broken=3), "malformed"),
        (Departure(None, broken=0, broke_websocket=True), "malformed"),
        (Departure(UnsupportedVersion("old"), broken=0), None),
        (Departure(JoinRefused("no probe"), broken=0, was_probing=True), "probe_failed"),
        (Departure(JoinRefused("wrong model"), broken=0), None),
        (Departure(Unauthorized("revoked"), broken=2), None),
        (Departure(Unavailable("no database"), broken=0), None),
        (Departure(CorollaError("a mistake here"), broken=2), None),
    ],
)
def test_how_a_connection_ended(departure: Departure, kind: EvidenceKind | None) -> None:
    assert of_departure(departure) == kind


@pytest.mark.parametrize("hop", [0, 1])
@pytest.mark.parametrize(
    "code",
    [
        "kv_cache_full",
        "session_unknown",
        "prefix_unknown",
        "resume_refused",
        "position_mismatch",
        "queue_full",
    ],
)
def test_who_is_full_or_has_forgotten_is_not_to_blame(code: str, hop: int) -> None:
    assert of_failure(code, hop) == ("refused", False)


@pytest.mark.parametrize("code", ["not_finite", "shape_mismatch", "malformed_tensor"])
def test_one_of_two_hops_is_to_blame_for_bad_input_but_none_for_a_drivers(code: str) -> None:
    assert of_failure(code, 1) == ("disputed", True)
    assert of_failure(code, 0) == ("refused", False)


@pytest.mark.parametrize("code", ["step_failed", "not_serving", "internal_error", "made up"])
def test_who_cannot_compute_is_to_blame(code: str) -> None:
    assert of_failure(code, 1) == ("failed", False)


@pytest.mark.parametrize("error", [WrongHop, RouteForged, RouteExpired, PeerGone, QueueFull, FrameRefused])
def test_only_what_a_sender_cannot_help_doing_is_forgiven(error: type[FrameRefused]) -> None:
    is_forged = error in {WrongHop, RouteForged}
    assert of_refusal(error("?")) == ("forged" if is_forged else None)


def test_every_failure_has_a_kind() -> None:
    assert {of_failure(code, 1)[0] for code in all_errors()} == {"refused", "disputed", "failed"}
