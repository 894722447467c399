"""relay/batches/: batches on one replica, as OpenAI's own client asks for them."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from relay.batches import batches_api, trying, worker
from relay.batches.lines import CHUNK_LINES
from relay.records import ChunkKey
from schema.errors import GenerationFailed, InvalidRequest, KVCacheFull, Unavailable
from tests.relay.core.answering_head import AnsweringHead, answering
from tests.relay.core.batch_client import ENDPOINT, contents, ended, line, lines, submit, texts_of
from tests.relay.core.peers import MODEL
from tests.relay.core.rest_client import assert_error, client_of
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.waiting import DEADLINE, eventually


@pytest.fixture
async def relay(
    sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RunningRelay]:
    """A relay that tries again at once."""
    monkeypatch.setattr(trying, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(trying, "MOST_SECONDS", 0.002)
    async with running_relay(sqlite_file, files=str(tmp_path / "files")) as running:
        yield running


@pytest.fixture
async def assistant(relay: RunningRelay, token: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=token, max_retries=0) as client:
        yield client


@pytest.fixture
async def head(relay: RunningRelay) -> AsyncIterator[AnsweringHead]:
    async with answering(await relay.serving(head=True)) as running:
        yield running


async def test_a_batch_is_answered_line_by_line_in_order(
    assistant: openai.AsyncOpenAI, head: AnsweringHead, relay: RunningRelay
) -> None:
    begun = await submit(assistant, lines(50), metadata={"of": "me"})
    assert (begun.status, begun.metadata, begun.endpoint) == ("validating", {"of": "me"}, ENDPOINT)
    assert begun.usage
    assert begun.usage.total_tokens == 0
    assert begun.expires_at == begun.created_at + 24 * 3600
    done = await ended(assistant, begun)
    assert done.status == "completed"
    assert done.request_counts
    assert done.request_counts.to_dict() == {"total": 50, "completed": 50, "failed": 0}
    assert done.usage
    assert done.usage.to_dict() == {
        "input_tokens": 250,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 50,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 300,
    }
    assert (done.error_file_id, done.errors) == (None, None)
    assert done.in_progress_at
    assert done.finalizing_at
    assert done.completed_at
    output = await contents(assistant, done.output_file_id)
    assert texts_of(output) == {f"line {n}": f"line {n}"[::-1] for n in range(50)}
    assert [one["custom_id"] for one in output] == [f"line {n}" for n in range(50)], "in the input's order"
    assert output[0]["error"] is None
    assert (output[0]["response"]["status_code"], output[0]["response"]["body"]["object"]) == (
        200,
        "text_completion",
    )
    assert set(head.asked.values()) == {1}
    assert await relay.metric("batch_lines_total", outcome="answered") == 50
    assert await relay.metric("batches_total", status="completed") == 1
    file = await assistant.files.retrieve(done.output_file_id or "")
    assert (file.purpose, file.filename) == ("batch_output", f"{done.id}_output.jsonl")


async def test_the_next_lines_are_looked_for_when_the_last_ones_are_done(
    relay: RunningRelay,
    assistant: openai.AsyncOpenAI,
    head: AnsweringHead,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not only every now and then, which is for what others do."""
    for period in ("POLL_SECONDS", "IDLE_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(worker, period, 3600.0)
    for _ in range(2):
        assert (
            await ended(assistant, await submit(assistant, lines(20 * CHUNK_LINES)))
        ).status == "completed"


async def test_what_a_line_does_wrong_is_in_the_error_file(
    assistant: openai.AsyncOpenAI, head: AnsweringHead
) -> None:
    content = b"\n".join(
        [
            line("good"),
            line("odd", body={"model": MODEL, "prompt": "odd", "best_of": 3}),
            b"",
            line("nobody's", body={"model": "no such model", "prompt": "a"}),
            line("nothing", body={}),
        ]
    )
    done = await ended(assistant, await submit(assistant, content))
    assert done.status == "completed"
    assert done.request_counts
    assert done.request_counts.to_dict() == {"total": 4, "completed": 1, "failed": 3}
    errors = await contents(assistant, done.error_file_id)
    assert [(one["custom_id"], one["response"]["status_code"]) for one in errors] == [
        ("odd", 400),
        ("nobody's", 404),
        ("nothing", 400),
    ]
    assert errors[0]["response"]["body"]["error"]["param"] == "best_of"
    assert list(texts_of(await contents(assistant, done.output_file_id))) == ["good"]
    assert done.usage
    assert (done.usage.input_tokens, done.usage.output_tokens) == (5, 1), "of what was answered"


async def test_a_line_is_tried_again_while_that_may_help(
    assistant: openai.AsyncOpenAI, head: AnsweringHead, relay: RunningRelay
) -> None:
    head.errors = {
        "busy": [KVCacheFull("no room")] * 20,
        "broken": [GenerationFailed("it has left")] * (trying.MOST_TRIES - 1),
        "poison": [GenerationFailed("it has left")] * 100,
        "wrong": [InvalidRequest("no")] * 100,
    }
    content = b"\n".join(line(name) for name in head.errors)
    done = await ended(assistant, await submit(assistant, content))
    assert sorted(texts_of(await contents(assistant, done.output_file_id))) == ["broken", "busy"]
    errors = await contents(assistant, done.error_file_id)
    assert [(one["custom_id"], one["response"]["status_code"]) for one in errors] == [
        ("poison", 502),
        ("wrong", 400),
    ]
    assert head.asked == {"busy": 21, "broken": trying.MOST_TRIES, "poison": trying.MOST_TRIES, "wrong": 1}
    assert await relay.metric("batch_lines_total", outcome="tried_again") == 20 + 2 * (trying.MOST_TRIES - 1)


async def test_lines_wait_for_a_model_that_cannot_answer_and_others_do_not(
    relay: RunningRelay, assistant: openai.AsyncOpenAI
) -> None:
    begun = await submit(assistant, lines(20))
    other = b"\n".join(line(f"{n}", body={"model": "no such model"}) for n in range(20))
    assert (await ended(assistant, await submit(assistant, other))).status == "completed"
    waiting = await assistant.batches.retrieve(begun.id)
    assert (waiting.status, waiting.request_counts and waiting.request_counts.completed) == ("in_progress", 0)
    assert relay.services.metrics.lines["tried_again"] == 0
    async with answering(await relay.serving(head=True)):
        assert (await ended(assistant, begun)).status == "completed"


async def test_files_stay_where_it_is_not_known_whether_their_batch_has_ended(
    relay: RunningRelay, assistant: openai.AsyncOpenAI, head: AnsweringHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = relay.services.store
    end_batch = store.end_batch

    async def committed_and_gone(*arguments: Any) -> bool:
        await end_batch(*arguments)
        raise Unavailable("the connection broke just then")

    monkeypatch.setattr(store, "end_batch", committed_and_gone)
    done = await ended(assistant, await submit(assistant, lines(3)))
    assert done.status == "completed"
    assert len(texts_of(await contents(assistant, done.output_file_id))) == 3


async def test_a_batch_whose_input_is_gone_fails(
    relay: RunningRelay, assistant: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    file = await assistant.files.create(file=("lines.jsonl", lines(3)), purpose="batch")
    (tmp_path / "files" / file.id).unlink()
    begun = await assistant.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
    done = await ended(assistant, begun)
    assert done.status == "failed"
    assert done.errors
    assert done.errors.data
    assert [error.code for error in done.errors.data] == ["input_file_gone"]
    with pytest.raises(openai.NotFoundError):
        await assistant.files.content(file.id)


async def test_a_batch_whose_input_goes_can_still_be_cancelled(
    relay: RunningRelay, assistant: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    begun = await submit(assistant, lines(3))
    async with asyncio.timeout(DEADLINE):
        while begun.status == "validating":
            await asyncio.sleep(0.02)
            begun = await assistant.batches.retrieve(begun.id)
    (tmp_path / "files" / begun.input_file_id).unlink()
    done = await ended(assistant, await assistant.batches.cancel(begun.id))
    assert (done.status, done.error_file_id) == ("cancelled", None)


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LEASE_SECONDS", 0.9)
    monkeypatch.setattr(worker, "RENEW_SECONDS", 0.3)


@pytest.mark.usefixtures("short_leases")
async def test_a_replica_does_not_take_its_own_lines_again_after_an_outage(
    relay: RunningRelay, assistant: openai.AsyncOpenAI, head: AnsweringHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    head.is_open.clear()
    begun = await submit(assistant, lines(16))
    await eventually(lambda: head.waiting == 16)
    until = asyncio.get_running_loop().time() + 2 * worker.LEASE_SECONDS
    tried = 0

    async def away(*_: object) -> set[ChunkKey]:
        nonlocal tried
        tried += 1
        raise Unavailable("the database is away")

    with monkeypatch.context() as outage:
        outage.setattr(relay.services.store, "renew_chunks", away)
        await eventually(lambda: asyncio.get_running_loop().time() > until and tried > 1)
    head.is_open.set()
    assert (await ended(assistant, begun)).status == "completed"
    assert set(head.asked.values()) == {1}


@pytest.mark.usefixtures("short_leases")
async def test_leases_are_kept_while_a_replica_stops(
    relay: RunningRelay, assistant: openai.AsyncOpenAI, head: AnsweringHead
) -> None:
    head.errors = {"later": [KVCacheFull("no room", retry_after=3600.0)] * 9}
    head.is_open.clear()
    await submit(assistant, lines(15) + line("later"))
    await eventually(lambda: head.waiting == 16)
    relay.services.stopping.set()
    until = asyncio.get_running_loop().time() + 2 * worker.LEASE_SECONDS
    await eventually(lambda: asyncio.get_running_loop().time() > until)
    store = relay.services.store
    assert await store.take_chunk("another", time.time(), time.time() + 60) is None
    head.is_open.set()
    await eventually(lambda: relay.services.metrics.lines["answered"] == 15)
    found = None
    async with asyncio.timeout(DEADLINE):
        while found is None:
            await asyncio.sleep(0.02)
            found = await store.take_chunk("another", time.time(), time.time() + 60)
    assert await store.answered_lines(found.batch_id) == set(range(15)), "the other has the rest to do"


async def test_many_batches_of_a_model_that_cannot_answer_keep_no_others_out(
    relay: RunningRelay, assistant: openai.AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MOST_CHUNKS", 6)
    monkeypatch.setattr(worker, "MOST_IDLE", 3)
    begun = [await submit(assistant, lines(2)) for _ in range(8)]
    other = b"\n".join(line(f"{n}", body={"model": "no such model"}) for n in range(20))
    assert (await ended(assistant, await submit(assistant, other))).status == "completed"
    async with answering(await relay.serving(head=True)) as head:
        assert {(await ended(assistant, one)).status for one in begun} == {"completed"}
    assert set(head.asked.values()) == {len(begun)}


@pytest.mark.parametrize(
    ("bad", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"\xff", "invalid_json_line", None),
        (b"[]", "invalid_line", None),
        (line("a", custom_id=None), "missing_required_parameter", "custom_id"),
        (line("a", method=None), "missing_required_parameter", "method"),
        (line("a", url=None), "missing_required_parameter", "url"),
        (line("a", body=None), "missing_required_parameter", "body"),
        (line("a", custom_id=""), "invalid_line", None),
        (line("a", more=1), "invalid_line", None),
        (line("a", method="GET"), "invalid_method", "method"),
        (line("a", url="/v1/embeddings"), "invalid_url", "url"),
        (line("a", body=[]), "invalid_line", "body"),
        (line("first"), "duplicate_custom_id", "custom_id"),
        (b" " * (2**20 + 1), "line_too_long", None),
    ],
)
async def test_a_file_with_a_bad_line_fails_and_names_it(
    assistant: openai.AsyncOpenAI, bad: bytes, code: str, param: str | None
) -> None:
    done = await ended(
        assistant, await submit(assistant, line("first") + b"\n\n" + bad + b"\n" + line("last"))
    )
    assert done.status == "failed"
    assert done.failed_at
    assert done.errors
    assert done.errors.data
    (error,) = done.errors.data
    assert (error.code, error.line, error.param) == (code, 3, param)
    assert error.message


async def test_a_file_of_nothing_fails(assistant: openai.AsyncOpenAI) -> None:
    done = await ended(assistant, await submit(assistant, b"\n \n"))
    assert done.errors
    assert done.errors.data
    assert [error.code for error in done.errors.data] == ["empty_file"]


async def test_errors_and_lines_are_counted_up_to_a_limit(
    assistant: openai.AsyncOpenAI, head: AnsweringHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.batches.lines.MAX_BATCH_LINES", 40)
    monkeypatch.setattr("relay.batches.lines.MAX_LINE_ERRORS", 10)
    for content, codes in ((lines(41), ["too_many_lines"]), (b"{\n" * 40, ["invalid_json_line"] * 10)):
        done = await ended(assistant, await submit(assistant, content))
        assert done.errors
        assert done.errors.data
        found = [error.code for error in done.errors.data]
        assert found[:10] == codes
    assert (await ended(assistant, await submit(assistant, lines(40)))).status == "completed"


async def test_a_cancelled_batch_keeps_what_was_answered(
    relay: RunningRelay, assistant: openai.AsyncOpenAI, head: AnsweringHead
) -> None:
    head.is_open.clear()
    begun = await submit(assistant, lines(50))
    await eventually(lambda: head.waiting == 16)
    head.is_open.set()
    await eventually(lambda: relay.services.metrics.lines["answered"] > 0)
    head.is_open.clear()
    cancelled = await assistant.batches.cancel(begun.id)
    assert cancelled.status == "cancelling"
    done = await ended(assistant, cancelled)
    assert done.status == "cancelled"
    assert done.cancelled_at
    answered = texts_of(await contents(assistant, done.output_file_id))
    errors = await contents(assistant, done.error_file_id)
    assert {one["error"]["code"] for one in errors} <= {"batch_cancelled"}
    assert sorted([*answered, *(one["custom_id"] for one in errors)]) == sorted(
        f"line {n}" for n in range(50)
    )
    assert await assistant.batches.cancel(begun.id) == done
    head.is_open.set()


async def test_a_batch_whose_time_is_over_says_so_of_its_lines(
    assistant: openai.AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_api, "WINDOW_SECONDS", 0.5)
    done = await ended(assistant, await submit(assistant, lines(20)))
    assert done.status == "expired"
    assert done.expired_at
    assert done.output_file_id is None
    errors = await contents(assistant, done.error_file_id)
    assert [(one["custom_id"], one["error"]["code"]) for one in errors] == [
        (f"line {n}", "batch_expired") for n in range(20)
    ]
    with pytest.raises(openai.ConflictError):
        await assistant.batches.cancel(done.id)


async def test_a_revoked_tokens_batches_end(
    relay: RunningRelay, assistant: openai.AsyncOpenAI, token: str
) -> None:
    await submit(assistant, lines(3))
    (record,) = [one for one in await relay.services.store.list_tokens() if one.kind == "client"]
    await relay.services.store.revoke_token(record.id)
    await eventually(lambda: relay.services.metrics.batches["cancelled"] == 1)


async def test_a_batch_of_another_token_is_not_there(
    relay: RunningRelay, assistant: openai.AsyncOpenAI
) -> None:
    begun = await submit(assistant, lines(1))
    async with client_of(relay, await relay.token("client", "stranger")) as stranger:
        path = f"/v1/batches/{begun.id}"
        body = {"endpoint": ENDPOINT, "completion_window": "24h", "input_file_id": begun.input_file_id}
        for asked in (
            stranger.get(path),
            stranger.post(f"{path}/cancel"),
            stranger.post("/v1/batches", json=body),
        ):
            assert_error(await asked, 404, "not_found", "invalid_request_error")
        assert (await stranger.get("/v1/batches")).json()["data"] == []


async def test_a_list_comes_in_pages_the_newest_first(assistant: openai.AsyncOpenAI) -> None:
    made = [(await submit(assistant, lines(1))).id for _ in range(5)]
    page = await assistant.batches.list(limit=2)
    assert ([one.id for one in page.data], page.has_more) == (made[:2:-1], True)
    assert [one.id async for one in page] == made[::-1]


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": "/v1/responses"},
        {"completion_window": "1h"},
        {"metadata": {"a": "b" * 513}},
        {"output_expires_after": {"anchor": "created_at", "seconds": 3600}},
        {"more": 1},
        {"input_file_id": 3},
    ],
)
async def test_a_batch_that_cannot_be_is_refused(http: httpx.AsyncClient, changes: dict[str, object]) -> None:
    body = {"endpoint": ENDPOINT, "completion_window": "24h", "input_file_id": "file-0"} | changes
    assert_error(await http.post("/v1/batches", json=body), 400, "invalid_request", "invalid_request_error")


async def test_no_id_does_harm(http: httpx.AsyncClient) -> None:
    for path in ("files/%00", "batches/%00", "files/..%2F..", "files?after=%00", "batches?after=%00"):
        assert_error(await http.get(f"/v1/{path}"), 404, "not_found", "invalid_request_error")


async def test_a_file_that_a_batch_reads_cannot_be_deleted(
    assistant: openai.AsyncOpenAI, head: AnsweringHead
) -> None:
    head.is_open.clear()
    begun = await submit(assistant, lines(2))
    with pytest.raises(openai.ConflictError, match=f"{begun.id} still reads this file"):
        await assistant.files.delete(begun.input_file_id)
    head.is_open.set()
    done = await ended(assistant, begun)
    assert (await assistant.files.delete(begun.input_file_id)).deleted
    with pytest.raises(openai.BadRequestError, match="written by a batch"):
        await assistant.batches.create(
            input_file_id=done.output_file_id or "", endpoint=ENDPOINT, completion_window="24h"
        )


async def test_a_batch_that_comes_again_is_answered_as_before(
    assistant: openai.AsyncOpenAI, head: AnsweringHead, http: httpx.AsyncClient
) -> None:
    file = await assistant.files.create(file=("lines.jsonl", lines(3)), purpose="batch")
    body = {"endpoint": ENDPOINT, "completion_window": "24h", "input_file_id": file.id}
    headers = {"Idempotency-Key": "once"}
    answers = await asyncio.gather(*(http.post("/v1/batches", json=body, headers=headers) for _ in range(5)))
    assert len({answer.content for answer in answers}) == 1
    (only,) = (await assistant.batches.list()).data
    await ended(assistant, only)
    later = await http.post("/v1/batches", json=body, headers=headers)
    assert later.content == answers[0].content
    other = await http.post("/v1/batches", json=body | {"metadata": {"a": "b"}}, headers=headers)
    assert_error(other, 409, "idempotency_key_reused", "invalid_request_error")
    assert set(head.asked.values()) == {1}
