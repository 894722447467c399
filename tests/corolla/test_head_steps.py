"""Steps of several replies at one head: each gets its own token, whatever becomes of the others."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest
import torch

from corolla import head_steps
from corolla.head_steps import HeadStep, HeadSteps
from corolla.models import HeadModel, ModelSource
from corolla.models.graphed_head import GraphedHead
from corolla.sampling import Sampler
from corolla.tensors import from_wire, to_wire
from schema.errors import NotFinite, NotServing, ShapeMismatch
from schema.generation import Sampling
from tests.corolla.models.checkpoints import llama, save

HIDDEN = 32
_T = TypeVar("_T")


class Thread:
    """A head's thread that works when it is let, and counts what it was asked for."""

    def __init__(self) -> None:
        self.is_free = asyncio.Event()
        self.calls = 0

    async def __call__(self, work: Callable[[], _T]) -> _T:
        self.calls += 1
        await self.is_free.wait()
        return work()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HeadModel:
    return HeadModel.load(ModelSource.open(save(llama(), tmp_path_factory.mktemp("head"))))


def step(
    seed: int, launch: Callable[[bytes], None] | None = None, ends: frozenset[int] = frozenset()
) -> HeadStep:
    hidden = torch.randn(1, 1, HIDDEN, generator=torch.Generator().manual_seed(seed))
    return HeadStep(to_wire(hidden), 5 + seed, Sampler(Sampling(temperature=0), [1, 2], 0), ends, launch)


def drawn_step(seed: int) -> HeadStep:
    sampler = Sampler(Sampling(temperature=2.0), [1, 2], seed)
    return replace(step(seed), sampler=sampler)


def drawn(model: HeadModel, seed: int) -> int:
    """What `drawn_step` of the same seed gives."""
    one = drawn_step(seed)
    return one.sampler.next_token(model.logits(from_wire(one.hidden))[0, -1])


def expected(model: HeadModel, one: HeadStep) -> int:
    return int(model.logits(from_wire(one.hidden))[0, -1].argmax())


@pytest.fixture(params=["as it is", "as graphs"])
def graphed(model: HeadModel, request: pytest.FixtureRequest) -> GraphedHead | None:
    """Where there is no GPU, a graph's work is run as it is."""
    return GraphedHead(model, record=lambda work: work) if request.param == "as graphs" else None


async def test_steps_that_wait_together_each_get_their_own_token(
    model: HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread, rows = Thread(), []
    steps = HeadSteps(model, HIDDEN, thread)
    whole = model.logits
    monkeypatch.setattr(model, "logits", lambda hidden: rows.append(len(hidden)) or whole(hidden))
    asked = [step(seed) for seed in range(5)]
    tasks = [asyncio.create_task(steps.advance(one)) for one in asked]
    await asyncio.sleep(0)
    thread.is_free.set()
    found = await asyncio.gather(*tasks)
    assert rows == [5]
    assert thread.calls == 1
    monkeypatch.undo()
    assert [one.token for one in found] == [expected(model, one) for one in asked]
    for one, advanced in zip(asked, found, strict=True):
        assert advanced.hidden is not None
        embedded = model.embed(torch.tensor([[advanced.token]]), one.position)
        assert torch.equal(from_wire(advanced.hidden), embedded)


async def test_more_steps_than_a_batch_takes_are_computed_in_several(
    model: HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_steps, "MOST_STEPS", 2)
    thread = Thread()
    thread.is_free.set()
    steps = HeadSteps(model, HIDDEN, thread)
    asked = [step(seed) for seed in range(5)]
    found = await asyncio.gather(*map(steps.advance, asked))
    assert [one.token for one in found] == [expected(model, one) for one in asked]
    assert thread.calls == 3


async def test_what_is_wrong_with_one_step_concerns_no_other(
    model: HeadModel, graphed: GraphedHead | None
) -> None:
    def broken(payload: bytes) -> None:
        raise NotServing("this volunteer is leaving")

    thread = Thread()
    steps = HeadSteps(model, HIDDEN, thread, graphed)
    fine = step(1)
    wide = HeadStep(to_wire(torch.zeros(1, 2, HIDDEN)), 1, fine.sampler, frozenset(), None)
    nan = HeadStep(to_wire(torch.full((1, 1, HIDDEN), torch.nan)), 1, fine.sampler, frozenset(), None)
    tasks = [asyncio.create_task(steps.advance(one)) for one in (wide, nan, step(2, broken), fine)]
    thread.is_free.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in outcomes[:3]] == [ShapeMismatch, NotFinite, NotServing]
    assert not isinstance(outcomes[3], BaseException)
    assert outcomes[3].token == expected(model, fine)


async def test_a_step_whose_reply_was_cancelled_is_not_computed(model: HeadModel) -> None:
    thread, sent = Thread(), []
    steps = HeadSteps(model, HIDDEN, thread)
    gone = asyncio.create_task(steps.advance(step(1, sent.append)))
    stays = asyncio.create_task(steps.advance(step(2)))
    await asyncio.sleep(0)
    gone.cancel()
    thread.is_free.set()
    assert (await stays).token == expected(model, step(2))
    assert sent == []


async def test_greedy_steps_and_drawn_ones_go_together(model: HeadModel, graphed: GraphedHead | None) -> None:
    """Drawn tokens are others than the likeliest, and what is sent on is theirs."""
    thread = Thread()
    thread.is_free.set()
    steps = HeadSteps(model, HIDDEN, thread, graphed)
    asked = [step(seed) if seed % 2 else drawn_step(seed) for seed in range(6)]
    found = await asyncio.gather(*map(steps.advance, asked))
    due = [expected(model, one) if index % 2 else drawn(model, index) for index, one in enumerate(asked)]
    assert [one.token for one in found] == due
    assert [one.token for one in found] != [expected(model, one) for one in asked]
    for one, advanced in zip(asked, found, strict=True):
        assert advanced.hidden is not None
        assert torch.equal(
            from_wire(advanced.hidden), model.embed(torch.tensor([[advanced.token]]), one.position)
        )


async def test_an_end_token_is_not_sent_on(model: HeadModel) -> None:
    thread, sent = Thread(), []
    thread.is_free.set()
    token = expected(model, step(3))
    advanced = await HeadSteps(model, HIDDEN, thread).advance(step(3, sent.append, frozenset({token})))
    assert advanced == (token, None)
    assert sent == []


async def test_when_the_thread_has_ended_every_step_says_so(model: HeadModel) -> None:
    async def ended(work: Callable[[], _T]) -> _T:
        raise NotServing("this volunteer is leaving")

    with pytest.raises(NotServing):
        await HeadSteps(model, HIDDEN, ended).advance(step(1))


async def test_scores_and_biases_of_one_step_concern_no_other(
    model: HeadModel, graphed: GraphedHead | None
) -> None:
    thread = Thread()
    thread.is_free.set()
    steps = HeadSteps(model, HIDDEN, thread, graphed)
    biased = Sampler(Sampling(temperature=0, logit_bias={9: 100.0}), [1, 2], 0, alternatives=1)
    asked = [step(1), replace(step(2), sampler=biased), step(3)]
    found = await asyncio.gather(*map(steps.advance, asked))
    assert [one.token for one in found] == [expected(model, asked[0]), 9, expected(model, asked[2])]
    (score,) = biased.scores
    logprobs = model.logits(from_wire(asked[1].hidden))[0, -1].log_softmax(-1)
    assert score.logprob == pytest.approx(logprobs[9].item(), abs=1e-5)
    assert [token for token, _ in score.top] == [expected(model, asked[1])]
    assert found[1].hidden is not None
    assert torch.equal(from_wire(found[1].hidden), model.embed(torch.tensor([[9]]), asked[1].position))


class Loop:
    """Runs head work at once while the device is free, and counts how often."""

    def __init__(self) -> None:
        self.is_free = True
        self.calls = 0

    def __call__(self, work: Callable[[], None]) -> bool:
        if self.is_free:
            self.calls += 1
            work()
        return self.is_free


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def thread() -> Thread:
    return Thread()


@pytest.fixture
async def quick(model: HeadModel, loop: Loop, thread: Thread, monkeypatch: pytest.MonkeyPatch) -> HeadSteps:
    """A head whose graphs for one sequence and for two are recorded."""
    monkeypatch.setattr(head_steps, "QUICK_SECONDS", 60.0)
    thread.is_free.set()
    steps = HeadSteps(model, HIDDEN, thread, GraphedHead(model, record=lambda work: work), loop)
    for count in (1, 2):
        await asyncio.gather(*(steps.advance(step(seed)) for seed in range(count)))
    assert (thread.calls, loop.calls) == (2, 0)
    thread.is_free.clear()
    return steps


async def test_greedy_steps_are_computed_at_once(model: HeadModel, quick: HeadSteps, loop: Loop) -> None:
    sent: list[bytes] = []
    asked = [step(1, sent.append), step(2, sent.append)]
    found = await asyncio.gather(*map(quick.advance, asked))
    assert [one.token for one in found] == [expected(model, one) for one in asked]
    assert (len(sent), loop.calls) == (2, 1)


async def test_what_fails_at_once_is_told_as_ever(model: HeadModel, quick: HeadSteps) -> None:
    nan = HeadStep(to_wire(torch.full((1, 1, HIDDEN), torch.nan)), 1, step(1).sampler, frozenset(), None)
    failed, fine = await asyncio.gather(quick.advance(nan), quick.advance(step(2)), return_exceptions=True)
    assert isinstance(failed, NotFinite)
    assert not isinstance(fine, BaseException)
    assert fine.token == expected(model, step(2))


async def test_more_than_a_batch_takes_are_computed_at_once_too(
    model: HeadModel, quick: HeadSteps, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_steps, "MOST_STEPS", 1)
    found = await asyncio.gather(quick.advance(step(1)), quick.advance(step(2)))
    assert [one.token for one in found] == [expected(model, step(1)), expected(model, step(2))]
    assert loop.calls == 2


@pytest.mark.parametrize("reason", ["drawn", "not recorded", "not free", "too slow", "of another dtype"])
async def test_other_steps_are_the_threads(
    model: HeadModel,
    quick: HeadSteps,
    loop: Loop,
    thread: Thread,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop.is_free = reason != "not free"
    asked = [drawn_step(1)] if reason == "drawn" else [step(1)]
    if reason == "not recorded":
        asked += [step(2), step(3)]
    if reason == "too slow":
        monkeypatch.setattr(head_steps, "QUICK_SECONDS", 0.0)
    if reason == "of another dtype":
        asked = [replace(step(1), hidden=to_wire(from_wire(step(1).hidden).to(torch.float16)))]
    thread.is_free.set()
    found = await asyncio.gather(*map(quick.advance, asked))
    due = [drawn(model, 1)] if reason == "drawn" else [expected(model, one) for one in asked]
    assert [one.token for one in found] == due
    assert (thread.calls, loop.calls) == (3, 0)


async def test_steps_whose_replies_were_cancelled_do_not_count(
    model: HeadModel, quick: HeadSteps, loop: Loop, thread: Thread
) -> None:
    """Three would need a graph that is not recorded."""
    gone = [asyncio.create_task(quick.advance(step(seed))) for seed in (1, 2)]
    stays = asyncio.create_task(quick.advance(step(3)))
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    assert (await stays).token == expected(model, step(3))
    assert (thread.calls, loop.calls) == (2, 1)


async def test_an_error_that_nobody_foresaw_is_told_too(
    model: HeadModel, quick: HeadSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(hidden: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(quick, "_check", broken)
    with pytest.raises(ZeroDivisionError):
        await quick.advance(step(1))
