"""What the relay counts about itself, and its text form for Prometheus.

Whatever is counted for every frame is a plain number that the event loop's thread owns: adding to
it costs a fifth of a Prometheus counter, which takes a lock. A collector reads the numbers when
somebody asks. What is counted once a request uses Prometheus' own types.
Does not know who counts, nor where the text is served.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from relay.outcomes import Outcomes
from schema.batches import EndStatus
from schema.credentials import TokenKind
from schema.errors import CorollaError, all_errors
from schema.frames import FrameType
from schema.generation import Usage
from schema.swarm import VolunteerState

ROLES = (*get_args(TokenKind), "page")
"""Who may be connected."""
_FIRST_TOKEN_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
_REPLY_BUCKETS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
"""Seconds."""


class Metrics:
    """The counters of one relay process. All but `render` belongs to the event loop's thread."""

    def __init__(self) -> None:
        self.skipped_frames = 0
        """Frames of a type that this version does not know."""
        self.sessions = 0
        """Routes granted: sessions that have begun."""
        self.tokens = 0
        """Tokens of replies."""
        self.cached_tokens = 0
        """Tokens of prompts that hops still held, and did not compute again."""
        self.continued_replies = 0
        """Replies that another head went on with."""
        self.kept_replies = {"resumed": 0, "given_up": 0, "crowded_out": 0}
        """Replies of pages that went away: gone on with, ended as nobody came back, ended to make room."""
        self.moves = 0
        """Volunteers that were given other blocks."""
        self.repairs = dict.fromkeys(all_errors(), 0)
        """Sessions that drivers have begun in place of one that a hop broke, by error code."""
        self.probes = {"passed": 0, "late": 0}
        """Probes of volunteers that served already, by what became of them."""
        self.lines = {"answered": 0, "failed": 0, "tried_again": 0}
        """Of batches, by what became of them here."""
        self.batches = dict.fromkeys(get_args(EndStatus), 0)
        """Ended here, by how."""
        self.webhooks = {"delivered": 0, "tried_again": 0, "given_up": 0}
        """By what became of telling them."""
        self.connections = dict.fromkeys(ROLES, 0)
        """Open connections by role."""
        self.frames_forwarded = {int(kind): 0 for kind in FrameType}
        self.bytes_forwarded = 0
        self.parcels = {"sent": 0, "received": 0}
        """To and from other replicas."""
        self.lost_parcels = 0
        """Of other replicas, that have not come."""
        self.refusals = dict.fromkeys(all_errors(), 0)
        """By error code."""
        self._registry = CollectorRegistry()
        self._registry.register(_Numbers(self))
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "corolla_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self._first_token = Histogram(
            "corolla_first_token_seconds",
            "Time from a request to the first token of its reply.",
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=self._registry,
        )
        self._reply = Histogram(
            "corolla_reply_seconds",
            "Time from a request to the end of its reply.",
            buckets=_REPLY_BUCKETS,
            registry=self._registry,
        )
        self._queued = Gauge(
            "corolla_queue_bytes", "Bytes that wait to be sent to peers.", registry=self._registry
        )
        self._volunteers = Gauge(
            "corolla_volunteers", "Volunteers of this replica.", ["state"], registry=self._registry
        )

    def count_forwarded(self, kind: int, size: int) -> None:
        """One frame put on a peer's queue. `kind`: a FrameType. `size`: bytes."""
        self.frames_forwarded[kind] += 1
        self.bytes_forwarded += size

    def refuse(self, code: str) -> None:
        """One frame, message, connection or request refused. A code nobody knows counts as internal."""
        self.refusals[code if code in self.refusals else CorollaError.code] += 1

    def count_repair(self, code: str) -> None:
        """One session begun in place of a broken one. A code nobody knows counts as internal."""
        self.repairs[code if code in self.repairs else CorollaError.code] += 1

    def count_request(self, route: str, status: int) -> None:
        """One HTTP request answered. `route`: the path's pattern, never the path."""
        self._requests.labels(route, str(status)).inc()

    def observe_reply(self, first_token: float, total: float, usage: Usage) -> None:
        """One reply complete. Seconds since its request, and the tokens that it took."""
        self._first_token.observe(first_token)
        self._reply.observe(total)
        self.tokens += usage.completion_tokens
        self.cached_tokens += usage.prompt_tokens_details.cached_tokens

    def watch_queues(self, queued_bytes: Callable[[], int]) -> None:
        """Have the bytes that wait for peers looked up at every `render`."""
        self._queued.set_function(queued_bytes)

    def watch_volunteers(self, by_state: Callable[[], Mapping[VolunteerState, int]]) -> None:
        """Have the volunteers counted at every `render`; a state that is not there is 0."""

        def of(state: VolunteerState) -> Callable[[], float]:
            return lambda: by_state().get(state, 0)

        for state in get_args(VolunteerState):
            self._volunteers.labels(state).set_function(of(state))

    def watch_outcomes(self, outcomes: Outcomes) -> None:
        """Have what is seen of volunteers shown at every `render`."""
        self._registry.register(_Outcomes(outcomes))

    def watch_admission(self, figures: Callable[[], tuple[int, int]]) -> None:
        """Have those who wait for a head shown at every `render`: how many do, and have ever done."""
        self._registry.register(_Waiting(figures))

    def watch_dropped(self, figures: Callable[[], Mapping[str, int]]) -> None:
        """Have what was counted and could not be kept shown at every `render`, by what it was."""
        self._registry.register(_Dropped(figures))

    def render(self) -> bytes:
        """Everything in Prometheus' text format (prometheus_client.CONTENT_TYPE_LATEST)."""
        return generate_latest(self._registry)


class _Numbers(Collector):
    """Shows the plain numbers to Prometheus."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        now = self._metrics
        frames = {FrameType(kind).name.lower(): count for kind, count in now.frames_forwarded.items()}
        yield _counter("frames_forwarded", "Frames put on a peer's queue.", frames, "type")
        yield _counter("bytes_forwarded", "Bytes of those frames.", now.bytes_forwarded)
        yield _counter("parcels", "Parcels to and from other replicas.", now.parcels, "direction")
        yield _counter("lost_parcels", "Parcels of other replicas that have not come.", now.lost_parcels)
        yield _counter("skipped_frames", "Frames of an unknown type.", now.skipped_frames)
        yield _counter("refusals", "Refusals by error code.", now.refusals, "reason")
        yield _counter("sessions", "Sessions begun: routes granted.", now.sessions)
        yield _counter("tokens", "Tokens of replies.", now.tokens)
        yield _counter("cached_tokens", "Tokens of prompts that were not computed again.", now.cached_tokens)
        yield _counter("continued_replies", "Replies that another head went on with.", now.continued_replies)
        yield _counter(
            "kept_replies", "Replies of pages that had gone, by outcome.", now.kept_replies, "outcome"
        )
        yield _counter("moves", "Volunteers that were given other blocks.", now.moves)
        yield _counter("repairs", "Sessions begun in place of one that a hop broke.", now.repairs, "reason")
        yield _counter("probes", "Probes of volunteers that served already.", now.probes, "outcome")
        yield _counter("batch_lines", "Lines of batches, by what became of them.", now.lines, "outcome")
        yield _counter("batches", "Batches ended, by how.", now.batches, "status")
        yield _counter("webhooks", "Webhooks, by what became of telling them.", now.webhooks, "outcome")
        connections = GaugeMetricFamily("corolla_connections", "Open connections.", labels=["role"])
        for role, count in now.connections.items():
            connections.add_metric([role], count)
        yield connections


class _Outcomes(Collector):
    """Shows what is seen of volunteers, and what becomes of it."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes

    def collect(self) -> Iterable[Metric]:
        now = self._outcomes
        yield _counter("outcomes", "What was seen of volunteers, by kind of evidence.", now.seen, "kind")
        yield _counter("outcomes_dropped", "Of that, what there was no room to keep.", now.dropped)
        waiting = GaugeMetricFamily("corolla_evidence_waiting", "Pieces of evidence that are not in SQL yet.")
        waiting.add_metric([], now.waiting)
        yield waiting


class _Dropped(Collector):
    """Shows what there was no room for while the database was away."""

    def __init__(self, figures: Callable[[], Mapping[str, int]]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        meaning = "Replies that no token's usage, and sums that no volunteer's contribution had room for."
        yield _counter("sums_dropped", meaning, self._figures(), "of")


class _Waiting(Collector):
    """Shows who waits for a head."""

    def __init__(self, figures: Callable[[], tuple[int, int]]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        waiting, waited = self._figures()
        now = GaugeMetricFamily("corolla_waiting_replies", "Replies that wait for a head with room.")
        now.add_metric([], waiting)
        yield now
        yield _counter("waited_replies", "Replies that had to wait for a head with room.", waited)


def _counter(name: str, meaning: str, value: int | Mapping[str, int], label: str | None = None) -> Metric:
    family = CounterMetricFamily(f"corolla_{name}", meaning, labels=[label] if label else [])
    if isinstance(value, Mapping):
        for key, count in value.items():
            family.add_metric([key], count)
    else:
        family.add_metric([], value)
    return family
