"""relay/batches/room.py and gate.py: lines run while people leave room, and no longer."""

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.batches.asked import asked_by
from relay.batches.gate import Gate, GateClosed
from relay.batches.lines import Line
from relay.batches.room import PLACES_OF_A_REPLY, Load, most_lines
from relay.batches.trying import FIRST_SECONDS, MOST_SECONDS, MOST_TRIES, is_tried_again, pause_before
from schema.errors import GenerationFailed, InvalidRequest, ModelUnavailable, NotFound, all_errors
from tests.relay.core.answering_head import answering
from tests.relay.core.batch_client import ENDPOINT, ended, line, lines, submit
from tests.relay.core.peers import MODEL
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.waiting import eventually

COUNTS = st.integers(0, 1000)


def test_lines_fill_the_heads_while_nobody_else_asks() -> None:
    assert most_lines(Load(heads=3, replies=0), 16) == 48


def test_a_few_replies_on_each_head_leave_no_room() -> None:
    assert most_lines(Load(heads=3, replies=3 * 16 // PLACES_OF_A_REPLY), 16) == 0


@given(COUNTS, COUNTS, st.integers(1, 8), st.integers(0, 64))
def test_more_people_never_mean_more_lines(heads: int, replies: int, workers: int, per_head: int) -> None:
    room = most_lines(Load(heads, replies, workers), per_head)
    assert 0 <= most_lines(Load(heads, replies + 1, workers), per_head) <= room <= heads * per_head
    assert most_lines(Load(heads, replies, workers + 1), per_head) <= room


@given(st.integers(1, 100), st.integers(1, 8), st.integers(1, 64))
def test_replicas_share_the_room_and_leave_none_of_it(heads: int, workers: int, per_head: int) -> None:
    shared = workers * most_lines(Load(heads, 0, workers), per_head)
    assert heads * per_head <= shared < heads * per_head + workers


async def test_no_line_is_begun_while_replies_of_people_fill_the_head(relay: RunningRelay) -> None:
    async with answering(await relay.serving(head=True)) as head:
        head.is_open.clear()
        admission = relay.services.admission
        gate = Gate(relay.services.swarm, admission.people, per_head=2 * PLACES_OF_A_REPLY)
        people = admission.enter(MODEL, "somebody", 2)
        asking = asyncio.create_task(gate.enter(MODEL))
        await asyncio.sleep(0)
        gate.look()
        assert (gate.room(MODEL), asking.done()) == (0, False)
        admission.leave(people[0])
        gate.look()
        await asking
        gate.replies_elsewhere = {MODEL: 2}
        assert gate.room(MODEL) == 0, "people of other replicas count too"
        admission.leave(people[1])


async def test_a_line_takes_the_room_of_all_replies_that_it_asks_for(relay: RunningRelay) -> None:
    async with answering(await relay.serving(head=True)):
        gate = Gate(relay.services.swarm, dict, per_head=4)
        await gate.enter(MODEL, 3)
        two, huge, last = [asyncio.create_task(gate.enter(MODEL, weight)) for weight in (2, 9, 1)]
        await asyncio.sleep(0)
        assert not two.done(), "there is room for one reply more"
        gate.leave(MODEL, 3)
        await two
        assert not huge.done()
        gate.leave(MODEL, 2)
        await huge
        gate.leave(MODEL, 9)
        await last


async def test_lines_do_not_take_the_places_of_their_owner(sqlite_file: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "token_replies": 2,
        "waiting_replies": 1,
        "head_replies": 4,
        "files": str(tmp_path),
    }
    async with running_relay(sqlite_file, **settings) as relay:
        token = await relay.token("client", "Ada")
        async with (
            answering(await relay.serving(head=True)) as head,
            openai.AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=token, max_retries=0) as client,
        ):
            head.is_open.clear()
            batch = await submit(client, lines(8))
            await eventually(lambda: head.waiting == 4)
            asking = asyncio.create_task(client.completions.create(model=MODEL, prompt="hers"))
            await eventually(lambda: relay.services.admission.people() == {MODEL: 1})
            head.is_open.set()
            assert (await asking).choices[0].text == "sreh"
            assert (await ended(client, batch)).status == "completed"
            assert set(head.asked.values()) == {1}


async def test_who_waits_is_let_in_by_who_leaves_in_turn(relay: RunningRelay) -> None:
    async with answering(await relay.serving(head=True)):
        gate = Gate(relay.services.swarm, dict, per_head=2)
        order: list[int] = []

        async def run(number: int) -> None:
            await gate.enter(MODEL)
            order.append(number)

        tasks = [asyncio.create_task(run(number)) for number in range(6)]
        await eventually(lambda: order == [0, 1])
        tasks[2].cancel()
        gate.leave(MODEL)
        await eventually(lambda: order == [0, 1, 3])
        gate.leave(MODEL)
        gate.leave(MODEL)
        await eventually(lambda: order == [0, 1, 3, 4, 5])
        late = asyncio.create_task(run(6))
        await asyncio.sleep(0)
        gate.close()
        with pytest.raises(GateClosed):
            await late
        with pytest.raises(GateClosed):
            await gate.enter(MODEL)
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_model_that_is_not_served_keeps_nobody_waiting(relay: RunningRelay) -> None:
    gate = Gate(relay.services.swarm, dict, per_head=2)
    await gate.enter("no such model")
    assert gate.room(MODEL) == 0, "it has no volunteers yet"


@pytest.mark.parametrize(
    ("body", "weight"),
    [
        ({"prompt": "a"}, 1),
        ({"prompt": ["a", "b"], "n": 3}, 6),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"messages": [], "n": 4}, 4),
        ({"input": ["a"] * 600}, 3),
        ({"n": "many", "prompt": ["a", "b"]}, 1),
        ({"n": -1}, 1),
        ({"prompt": []}, 1),
    ],
)
def test_a_line_weighs_what_it_asks_for(body: dict[str, Any], weight: int) -> None:
    asked = asked_by(Line(0, 0, line("a", body=body)), ENDPOINT)
    assert asked.weight == weight


def test_what_is_tried_again() -> None:
    tried = {code for code, kind in all_errors().items() if is_tried_again(kind("x"), 1)}
    assert {"model_unavailable", "queue_full", "kv_cache_full", "unavailable", "generation_failed"} <= tried
    assert not {"invalid_request", "not_found", "context_length_exceeded", "too_large"} & tried
    assert is_tried_again(ModelUnavailable("x"), 10**6)
    assert not is_tried_again(GenerationFailed("x"), MOST_TRIES)
    assert not is_tried_again(InvalidRequest("x"), 0)
    assert not is_tried_again(NotFound("x"), 0)


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 100))
def test_pauses_grow_and_end(attempt: int, chance: float, told: float) -> None:
    pause = pause_before(attempt, told, chance)
    assert max(FIRST_SECONDS / 2, told) <= pause <= max(1.5 * MOST_SECONDS, told)
    assert pause_before(attempt, None, chance) <= pause_before(attempt + 1, None, chance)
