"""A reply that loses a hop goes on where it was: only who takes the dead one's place computes it again."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest
import torch

from corolla.exchange import Exchange
from corolla.generation import Completed, TextDelta, generate
from corolla.prefixes import PrefixIndex
from corolla.repair import Break
from corolla.resuming import Remains, Resumption, hops_left, is_sound, plan_resumption
from schema.errors import (
    CorollaError,
    GenerationFailed,
    KVCacheFull,
    NotFinite,
    PeerGone,
    ResumeRefused,
    RouteExpired,
    ShapeMismatch,
)
from schema.frames import Frame, FrameType
from schema.generation import GenerationRequest, Sampling, Stopping
from schema.ids import PeerId, SessionId, Span
from schema.routes import Hop, read_route
from tests.corolla.fakes import (
    ANEMONE,
    BELLIS,
    CROCUS,
    DAHLIA,
    EVENING,
    ME,
    deliver,
    failure,
    until,
)
from tests.corolla.tiny_text import SHAPE, StageHops, TinyLlama
from volunteer.sent import SentOutputs
from volunteer.stage import Stage

PROMPT = [(5 * number) % SHAPE.vocabulary for number in range(40)]
TOKENS = 10
MIDST = 4
"""Tokens that are there when a hop is lost."""
HELD = len(PROMPT) + MIDST - 1
"""Tokens whose steps have come back then."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TinyLlama:
    torch.set_num_threads(1)
    return TinyLlama(tmp_path_factory.mktemp("llama"))


class Reader:
    """A driver over three hops, of which the first may be its own process."""

    def __init__(self, llama: TinyLlama, first: PeerId = ANEMONE, kept: int = 2**20) -> None:
        """`kept`: bytes that every hop may keep of what it has sent on."""
        self.sent: list[SentOutputs] = []
        self._kept, self._llama = kept, llama
        self.head = replace(llama.head(), prefixes=PrefixIndex(lambda held: held))
        self.exchange = Exchange()
        spans = {first: (0, 1), BELLIS: (1, 3), CROCUS: (3, 4)}
        stages = {peer: self._stage(*span) for peer, span in spans.items()}
        self.hops = StageHops(self.exchange, stages, self._stage)
        self.hops.spares = [DAHLIA, EVENING]
        self.ids: list[int] = []

    def _stage(self, start: int, end: int) -> Stage:
        self.sent.append(SentOutputs(self._kept))
        return self._llama.stage(start, end, self.sent[-1])

    async def read(self, prompt: Sequence[int] = PROMPT, asker: str | None = None) -> Completed:
        """The end of a reply, whose tokens are in `ids`. With an asker its hops keep it."""
        self.ids = []
        request = GenerationRequest(
            model="tiny",
            prompt=list(prompt),
            sampling=Sampling(temperature=0),
            stopping=Stopping(max_tokens=TOKENS),
        )
        async for event in generate(self.head, self.exchange, request, asker):
            if isinstance(event, TextDelta):
                self.ids += event.ids
            else:
                return event
        raise AssertionError("the reply has no end")

    async def read_while(self, act: Callable[[], None], asker: str | None = None) -> Counter[PeerId]:
        """A reply in whose midst something happens, and how many tokens each hop computes from then on."""
        self.hops.held = True
        reading = asyncio.create_task(self.read(asker=asker))
        for _ in range(MIDST):
            await until(lambda: self.hops.waiting)
            self.hops.release()
        await until(lambda: self.hops.waiting)
        before = self.hops.computed.copy()
        self.hops.held = False
        act()
        await reading
        return self.hops.computed - before

    def frames(self, kind: FrameType) -> list[Frame]:
        return [frame for frame in self.hops.frames if frame.type == kind]

    def assert_nothing_is_left(self) -> None:
        assert self.hops.sessions == 0
        assert [len(one) for one in self.sent] == [0] * len(self.sent)
        assert [one.used for one in self.sent] == [0] * len(self.sent)


async def undisturbed(llama: TinyLlama) -> list[int]:
    reader = Reader(llama)
    await reader.read()
    return reader.ids


class TestAHopThatLeaves:
    @pytest.mark.parametrize(
        ("first", "lost"),
        [(ANEMONE, ANEMONE), (ANEMONE, BELLIS), (ANEMONE, CROCUS), (ME, BELLIS), (ME, CROCUS)],
        ids=[
            "the first",
            "the middle",
            "the last",
            "middle, behind the driver's",
            "last, behind the driver's",
        ],
    )
    async def test_is_replaced_by_one_that_alone_computes_its_part_again(
        self, llama: TinyLlama, first: PeerId, lost: PeerId
    ) -> None:
        reader = Reader(llama, first)
        computed = await reader.read_while(lambda: reader.hops.lose(lost))
        assert reader.ids == await undisturbed(llama)
        rest = TOKENS - MIDST
        left = {first, BELLIS, CROCUS} - {lost}
        assert computed == dict.fromkeys(left, rest) | {DAHLIA: HELD + rest}
        reader.assert_nothing_is_left()

    async def test_in_the_midst_of_a_prompt_is_replaced_too(
        self, llama: TinyLlama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("corolla.generation.PREFILL_TOKENS", 8)
        reader = Reader(llama)
        reader.hops.held = True
        reading = asyncio.create_task(reader.read())
        await until(lambda: len(reader.hops.waiting) > 4)
        reader.hops.release(3)
        reader.hops.held = False
        held = reader.hops.computed[ANEMONE]
        reader.hops.lose(BELLIS)
        await reading
        assert reader.ids == await undisturbed(llama)
        assert 0 < held < len(PROMPT)
        assert reader.hops.computed[ANEMONE] == len(PROMPT) + TOKENS - 1
        assert reader.hops.computed[CROCUS] == len(PROMPT) + TOKENS - 1
        assert reader.hops.computed[DAHLIA] == len(PROMPT) + TOKENS - 1
        reader.assert_nothing_is_left()

    async def test_is_sent_nothing_over_the_links_between_those_that_are_left(self, llama: TinyLlama) -> None:
        """The driver sends stop 0 no states, if that one is left."""
        reader = Reader(llama)
        await reader.read_while(lambda: reader.hops.lose(CROCUS))
        assert [len(frame.payload) for frame in reader.frames(FrameType.REPLAY)] == [12]

    async def test_may_be_two_hops(self, llama: TinyLlama) -> None:
        reader = Reader(llama)

        def lose_both() -> None:
            reader.hops.lose(BELLIS)
            reader.hops.gone.add(CROCUS)
            reader.hops.stages[CROCUS].close_all()

        computed = await reader.read_while(lose_both)
        assert reader.ids == await undisturbed(llama)
        rest = TOKENS - MIDST
        assert computed == {ANEMONE: rest, DAHLIA: HELD + rest, EVENING: HELD + rest}
        reader.assert_nothing_is_left()

    async def test_may_be_who_has_just_taken_another_s_place(self, llama: TinyLlama) -> None:
        """What was replayed is kept as well, and so can be replayed again."""
        reader = Reader(llama)
        reader.hops.replies[MIDST + 1] = lambda frame: _losing(reader, CROCUS, frame)
        await reader.read_while(lambda: reader.hops.lose(BELLIS))
        assert reader.ids == await undisturbed(llama)
        assert len(reader.frames(FrameType.RESUME)) == 2
        assert reader.hops.computed[ANEMONE] <= len(PROMPT) + TOKENS + 1
        assert reader.hops.computed[EVENING] >= len(PROMPT)
        reader.assert_nothing_is_left()

    async def test_that_is_back_at_once_has_to_be_sent_everything(self, llama: TinyLlama) -> None:
        reader = Reader(llama)

        def blink() -> None:
            reader.hops.lose(BELLIS)
            reader.hops.gone.clear()

        computed = await reader.read_while(blink)
        assert reader.ids == await undisturbed(llama)
        assert computed == {ANEMONE: TOKENS - MIDST, BELLIS: HELD + TOKENS - MIDST, CROCUS: TOKENS - MIDST}

    async def test_leaves_a_session_that_can_be_kept_and_forked(self, llama: TinyLlama) -> None:
        """And what was sent on of a fork can be sent again as well."""
        reader = Reader(llama)
        await reader.read_while(lambda: reader.hops.lose(BELLIS), asker="ada")
        chat = [*PROMPT, *reader.ids, 1, 2, 3]
        calm = Reader(llama)
        await calm.read(chat)
        reader.hops.replies[3] = lambda frame: _losing(reader, DAHLIA, frame)
        before = reader.hops.computed.copy()
        end = await reader.read(chat, asker="ada")
        assert reader.ids == calm.ids
        assert end.usage.prompt_tokens_details.cached_tokens == HELD + TOKENS - MIDST
        computed = reader.hops.computed - before
        assert computed[ANEMONE] < len(PROMPT) < computed[EVENING]


class TestARoute:
    async def test_that_expires_is_renewed_and_nothing_is_computed_again(self, llama: TinyLlama) -> None:
        reader = Reader(llama)

        def expire() -> None:
            (waiting,), reader.hops.waiting = reader.hops.waiting, []
            deliver(reader.exchange, failure(waiting, RouteExpired("ask for another")))

        computed = await reader.read_while(expire)
        assert reader.ids == await undisturbed(llama)
        assert computed == dict.fromkeys([ANEMONE, BELLIS, CROCUS], TOKENS - MIDST)
        assert not reader.frames(FrameType.REPLAY)
        reader.assert_nothing_is_left()


class TestWhatCannotBeResumed:
    async def test_since_nothing_was_kept_is_computed_anew(self, llama: TinyLlama) -> None:
        reader = Reader(llama, kept=0)
        computed = await reader.read_while(lambda: reader.hops.lose(BELLIS))
        assert reader.ids == await undisturbed(llama)
        assert computed == dict.fromkeys([ANEMONE, CROCUS, DAHLIA], HELD + TOKENS - MIDST)
        assert len(reader.frames(FrameType.RESUME)) == 1
        reader.assert_nothing_is_left()

    @pytest.mark.parametrize("left", [ANEMONE, CROCUS])
    async def test_since_a_hop_has_begun_anew_is_computed_anew(self, llama: TinyLlama, left: PeerId) -> None:
        reader = Reader(llama)

        def lose() -> None:
            reader.hops.stages[left].close_all()
            reader.hops.lose(BELLIS)

        await reader.read_while(lose)
        assert reader.ids == await undisturbed(llama)
        reader.assert_nothing_is_left()

    @pytest.mark.parametrize("error", [KVCacheFull, ResumeRefused, ShapeMismatch, PeerGone])
    @pytest.mark.parametrize("kind", [FrameType.RESUME, FrameType.REPLAY])
    async def test_since_something_goes_wrong_is_computed_anew(
        self, llama: TinyLlama, kind: FrameType, error: type[CorollaError]
    ) -> None:
        reader = Reader(llama)
        reader.hops.by_kind[kind] = lambda frame: failure(frame._replace(hop=1), error("not now"))
        await reader.read_while(lambda: reader.hops.lose(BELLIS))
        assert reader.ids == await undisturbed(llama)
        assert len(reader.frames(FrameType.RESUME)) == 1
        reader.assert_nothing_is_left()

    async def test_since_a_hop_skips_frames_that_it_does_not_know_is_computed_anew(
        self, llama: TinyLlama
    ) -> None:
        """It says so with the first slice behind them."""
        reader = Reader(llama)
        reader.hops.by_kind[FrameType.RESUME] = lambda frame: None
        reader.hops.by_kind[FrameType.REPLAY] = lambda frame: None
        await reader.read_while(lambda: reader.hops.lose(BELLIS))
        assert reader.ids == await undisturbed(llama)
        reader.assert_nothing_is_left()

    async def test_since_nobody_answers_is_computed_anew_after_a_while(
        self, llama: TinyLlama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("corolla.replaying.RESUME_SECONDS", 0.0)
        reader = Reader(llama)
        reader.hops.by_kind[FrameType.RESUME] = lambda frame: None
        await reader.read_while(lambda: reader.hops.lose(BELLIS))
        assert reader.ids == await undisturbed(llama)
        assert len(reader.frames(FrameType.RESUME)) == 1
        reader.assert_nothing_is_left()

    async def test_is_over_on_every_hop_when_the_reader_leaves_meanwhile(self, llama: TinyLlama) -> None:
        reader = Reader(llama)
        reader.hops.held = True
        reading = asyncio.create_task(reader.read())
        for _ in range(MIDST):
            await until(lambda: reader.hops.waiting)
            reader.hops.release()
        await until(lambda: reader.hops.waiting)
        reader.hops.lose(BELLIS)
        await until(lambda: reader.frames(FrameType.RESUME))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        reader.assert_nothing_is_left()

    async def test_is_over_on_every_hop_when_nothing_more_is_to_be_repaired(
        self, llama: TinyLlama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A hop leaves while the session is gone on with, and one repair was all."""
        monkeypatch.setattr("corolla.repair.MOST_REPAIRS", 1)
        reader = Reader(llama)
        reader.hops.by_kind[FrameType.REPLAY] = lambda frame: _losing(reader, CROCUS, frame)
        with pytest.raises(CorollaError):
            await reader.read_while(lambda: reader.hops.lose(BELLIS))
        assert len(reader.frames(FrameType.RESUME)) == 1
        reader.assert_nothing_is_left()


def _losing(reader: Reader, peer: PeerId, frame: Frame) -> Frame:
    """A hop leaves, as the answer to a step."""
    reader.hops.replies.clear()
    reader.hops.gone.add(peer)
    reader.hops.stages[peer].close_all()
    hops = [hop.peer for hop in read_route(frame.route).hops]
    return failure(frame._replace(hop=hops.index(peer)), PeerGone("not connected"))


HOPS = (Hop(ANEMONE, Span(0, 1)), Hop(BELLIS, Span(1, 3)), Hop(CROCUS, Span(3, 4)))
ID = SessionId(b"b" * 16)
REMAINS = Remains(ID, frozenset(HOPS[:1] + HOPS[2:]), held=50)


class TestThePlan:
    def test_names_the_stops_that_are_new(self) -> None:
        hops = (HOPS[0], Hop(DAHLIA, Span(1, 3)), HOPS[2])
        assert plan_resumption(REMAINS, hops, 51) == Resumption(ID, 50, frozenset({1}))

    def test_takes_other_blocks_for_another_hop(self) -> None:
        hops = (Hop(ANEMONE, Span(0, 2)), Hop(DAHLIA, Span(2, 3)), HOPS[2])
        plan = plan_resumption(REMAINS, hops, 51)
        assert plan is not None
        assert plan.new == {0, 1}

    def test_leaves_the_last_token_to_be_computed(self) -> None:
        plan = plan_resumption(REMAINS, HOPS, 50)
        assert plan is not None
        assert plan.position == 49

    def test_is_none_where_nobody_is_left_or_nothing_is_held(self) -> None:
        assert plan_resumption(REMAINS, (Hop(DAHLIA, Span(0, 4)),), 51) is None
        assert plan_resumption(REMAINS._replace(held=0), HOPS, 51) is None
        assert plan_resumption(REMAINS, HOPS, 1) is None

    def test_does_not_count_on_who_was_lost(self) -> None:
        assert hops_left(HOPS, {BELLIS}) == {HOPS[0], HOPS[2]}


@pytest.mark.parametrize(
    ("broken", "sound"),
    [
        (None, False),
        (Break(GenerationFailed("it left"), ANEMONE, is_gone=True), True),
        (Break(RouteExpired("too old")), True),
        (Break(KVCacheFull("no memory"), ANEMONE), True),
        (Break(NotFinite("garbage"), ANEMONE), False),
        (Break(ShapeMismatch("garbage"), BELLIS, suspects=(ANEMONE,)), False),
        (Break(GenerationFailed("nobody answers"), suspects=(ANEMONE, BELLIS)), False),
    ],
)
def test_what_hops_hold_is_trusted_unless_one_may_have_sent_garbage(
    broken: Break | None, sound: bool
) -> None:
    assert is_sound(broken) is sound


@pytest.fixture(autouse=True)
async def nothing_is_left_in_the_loop() -> AsyncIterator[None]:
    """Every reply ends its tasks."""
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}
