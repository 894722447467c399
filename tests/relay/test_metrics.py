"""relay/metrics.py: what is counted is shown."""

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.metrics import Metrics
from schema.errors import all_errors
from schema.frames import FrameType
from schema.generation import PromptDetails, Usage


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def samples(metrics: Metrics) -> Iterator[tuple[str, float]]:
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            yield (
                "".join([sample.name, *(f" {key}={value}" for key, value in sample.labels.items())]),
                sample.value,
            )


def value(metrics: Metrics, name: str) -> float:
    return dict(samples(metrics))[f"corolla_{name}"]


def test_every_error_code_has_a_counter_from_the_start(metrics: Metrics) -> None:
    shown = dict(samples(metrics))
    assert all(shown[f"corolla_refusals_total reason={code}"] == 0 for code in all_errors())


def test_every_frame_type_has_a_counter_from_the_start(metrics: Metrics) -> None:
    shown = dict(samples(metrics))
    assert all(shown[f"corolla_frames_forwarded_total type={kind.name.lower()}"] == 0 for kind in FrameType)


def test_a_forwarded_frame_is_counted_by_type_and_bytes(metrics: Metrics) -> None:
    metrics.count_forwarded(FrameType.STEP, 16384)
    metrics.count_forwarded(FrameType.STEP, 100)
    assert value(metrics, "frames_forwarded_total type=step") == 2
    assert value(metrics, "bytes_forwarded_total") == 16484


def test_a_refusal_is_counted_by_its_code(metrics: Metrics) -> None:
    metrics.refuse("queue_full")
    assert value(metrics, "refusals_total reason=queue_full") == 1


def test_a_refusal_with_an_unknown_code_makes_no_new_series(metrics: Metrics) -> None:
    metrics.refuse("made-up")
    assert value(metrics, "refusals_total reason=internal_error") == 1
    assert "made-up" not in metrics.render().decode()


def test_a_repair_is_counted_by_what_broke_the_session(metrics: Metrics) -> None:
    metrics.count_repair("peer_gone")
    metrics.count_repair("made-up")
    assert value(metrics, "repairs_total reason=peer_gone") == 1
    assert value(metrics, "repairs_total reason=internal_error") == 1


def test_plain_numbers_are_shown(metrics: Metrics) -> None:
    metrics.skipped_frames += 3
    metrics.sessions += 2
    metrics.connections["page"] += 1
    assert value(metrics, "skipped_frames_total") == 3
    assert value(metrics, "sessions_total") == 2
    assert value(metrics, "connections role=page") == 1
    assert value(metrics, "connections role=volunteer") == 0


def test_requests_are_counted_by_route_and_status(metrics: Metrics) -> None:
    metrics.count_request("/v1/models", 200)
    assert value(metrics, "requests_total route=/v1/models status=200") == 1


def test_a_reply_is_timed(metrics: Metrics) -> None:
    usage = Usage(50, 20, 70, PromptDetails(cached_tokens=40))
    metrics.observe_reply(first_token=0.3, total=3.0, usage=usage)
    assert value(metrics, "first_token_seconds_bucket le=0.25") == 0
    assert value(metrics, "first_token_seconds_bucket le=0.5") == 1
    assert value(metrics, "reply_seconds_sum") == 3.0
    assert value(metrics, "tokens_total") == 20
    assert value(metrics, "cached_tokens_total") == 40


def test_queues_and_volunteers_are_looked_up_when_asked_for(metrics: Metrics) -> None:
    waiting = [10]
    metrics.watch_queues(lambda: sum(waiting))
    metrics.watch_volunteers(lambda: {"serving": len(waiting)})
    waiting.append(5)
    assert value(metrics, "queue_bytes") == 15
    assert value(metrics, "volunteers state=serving") == 2
    assert value(metrics, "volunteers state=draining") == 0


def test_two_relays_in_one_process_count_apart(metrics: Metrics) -> None:
    metrics.refuse("peer_gone")
    assert value(Metrics(), "refusals_total reason=peer_gone") == 0
