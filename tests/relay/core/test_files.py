"""relay/batches/files_api.py: what OpenAI's own client does with files."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from relay.batches.storage import PART_BYTES, Folder
from relay.batches.uploads import MOST_AT_ONCE
from relay.queries.quotas import LEAST_BYTES
from schema.errors import Unavailable
from tests.relay.core.rest_client import CHAT, QUESTION, assert_error, client_of
from tests.relay.core.support import RunningRelay, running_relay
from tests.relay.core.waiting import DEADLINE, eventually

LINES = b'{"a": 1}\n'
FORM: dict[str, Any] = {"files": {"file": ("lines.jsonl", LINES)}, "data": {"purpose": "batch"}}


@pytest.fixture
async def relay(sqlite_file: Path, tmp_path: Path) -> AsyncIterator[RunningRelay]:
    async with running_relay(sqlite_file, files=str(tmp_path / "files"), file_bytes=2**20) as running:
        yield running


@pytest.fixture
async def assistant(relay: RunningRelay, token: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=token, max_retries=0) as client:
        yield client


@pytest.fixture
async def stranger(relay: RunningRelay) -> AsyncIterator[httpx.AsyncClient]:
    """A client with another token."""
    async with client_of(relay, await relay.token("client", "stranger")) as client:
        yield client


async def test_a_file_is_there_until_it_is_deleted(assistant: openai.AsyncOpenAI, tmp_path: Path) -> None:
    made = await assistant.files.create(file=("lines.jsonl", LINES), purpose="batch")
    assert (made.object, made.bytes, made.filename, made.purpose) == ("file", 9, "lines.jsonl", "batch")
    assert await assistant.files.retrieve(made.id) == made
    assert (await assistant.files.content(made.id)).read() == LINES
    deleted = await assistant.files.delete(made.id)
    assert (deleted.id, deleted.deleted) == (made.id, True)
    with pytest.raises(openai.NotFoundError):
        await assistant.files.retrieve(made.id)
    assert list((tmp_path / "files").iterdir()) == []


async def test_a_list_comes_in_pages(assistant: openai.AsyncOpenAI) -> None:
    made = [(await assistant.files.create(file=(f"{n}", LINES), purpose="batch")).id for n in range(5)]
    page = await assistant.files.list(limit=2, order="asc")
    assert ([one.id for one in page.data], page.has_more) == (made[:2], True)
    assert [one.id async for one in page] == made
    assert [one.id for one in (await assistant.files.list()).data] == made[::-1]
    assert (await assistant.files.list(purpose="batch_output")).data == []


async def test_a_file_of_another_token_is_not_there(
    assistant: openai.AsyncOpenAI, stranger: httpx.AsyncClient
) -> None:
    made = await assistant.files.create(file=("lines.jsonl", LINES), purpose="batch")
    path = f"/v1/files/{made.id}"
    for asked in (stranger.get(path), stranger.get(f"{path}/content"), stranger.delete(path)):
        assert_error(await asked, 404, "not_found", "invalid_request_error")
    assert_error(await stranger.get(f"/v1/files?after={made.id}"), 404, "not_found", "invalid_request_error")
    assert (await stranger.get("/v1/files")).json()["data"] == []
    assert (await assistant.files.content(made.id)).read() == LINES


async def test_a_large_file_is_whole_though_it_comes_in_pieces(assistant: openai.AsyncOpenAI) -> None:
    content = bytes(range(256)) * 4096
    made = await assistant.files.create(file=("a", content), purpose="batch")
    assert (await assistant.files.content(made.id)).read() == content


async def test_whoever_asks_for_the_headers_alone_has_not_all_of_it_read(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, read = bytes(4 * PART_BYTES), 0
    form: dict[str, Any] = FORM | {"files": {"file": ("a", content)}}
    path = f"/v1/files/{(await http.post('/v1/files', **form)).json()['id']}/content"
    read_part = Folder.read

    async def noted(*arguments: Any) -> AsyncIterator[bytes]:
        nonlocal read
        async with aclosing(read_part(*arguments)) as parts:
            async for part in parts:
                read += len(part)
                yield part

    monkeypatch.setattr(Folder, "read", noted)
    asked = await http.head(path)
    assert (asked.status_code, asked.headers["Content-Length"]) == (200, str(len(content)))
    assert read <= PART_BYTES
    whole = await http.get(path)
    assert whole.content == content
    same = {"Content-Type", "Content-Disposition", "Content-Length"}
    assert {name: asked.headers[name] for name in same} == {name: whole.headers[name] for name in same}


async def test_a_file_whose_storage_goes_away_meanwhile_ends_early_and_is_no_mistake(
    relay: RunningRelay,
    http: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = f"/v1/files/{(await http.post('/v1/files', **FORM)).json()['id']}/content"

    async def one_part(*_: object) -> AsyncIterator[bytes]:
        yield LINES[:1]
        raise Unavailable("the folder is away")

    monkeypatch.setattr(Folder, "read", one_part)
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get(path)
    assert "a file is not sent to its end: the folder is away" in caplog.text
    assert not [record for record in caplog.records if record.exc_info]
    assert relay.refusals("unavailable") == 1


@pytest.mark.parametrize("size", [2**20 + 1, 2**21])
async def test_a_file_over_the_limit_is_refused(
    http: httpx.AsyncClient, size: int, relay: RunningRelay, tmp_path: Path
) -> None:
    answer = await http.post("/v1/files", files={"file": bytes(size)}, data={"purpose": "batch"})
    assert_error(answer, 413, "too_large", "invalid_request_error")
    assert relay.refusals("too_large") == 1
    assert not (tmp_path / "files").exists()


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"files": {"file": LINES}, "data": {"purpose": "assistants"}}, "purpose"),
        ({"files": {"file": LINES}}, "purpose"),
        ({"files": {"other": LINES}, "data": {"purpose": "batch"}}, "file"),
        ({"files": {"file": LINES}, "data": {"purpose": "batch", "more": "1"}}, "more"),
        ({"json": {}}, None),
        ({"content": b"?", "headers": {"content-type": "multipart/form-data; boundary=a"}}, "file"),
        ({"content": b"?", "headers": {"content-type": "multipart/form-data"}}, None),
        ({"files": [("file", LINES), ("file", LINES)]}, None),
    ],
)
async def test_a_form_that_is_not_understood_is_refused_by_name(
    http: httpx.AsyncClient, form: dict[str, Any], param: str | None
) -> None:
    error = assert_error(
        await http.post("/v1/files", **form), 400, "invalid_request", "invalid_request_error"
    )
    assert error["param"] in (param, None)


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "limit=x", "order=up"])
async def test_a_list_that_cannot_be_asked_for_is_refused(http: httpx.AsyncClient, query: str) -> None:
    answer = await http.get(f"/v1/files?{query}")
    error = assert_error(answer, 400, "invalid_request", "invalid_request_error")
    assert error["param"] == query.partition("=")[0]


async def test_files_need_a_clients_token(relay: RunningRelay) -> None:
    async with client_of(relay, None) as nobody, client_of(relay, await relay.token()) as volunteer:
        assert (await nobody.get("/v1/files")).status_code == 401
        posted = await nobody.post("/v1/files", headers={"Origin": relay.url}, **FORM)
        assert posted.status_code == 401
        assert (await volunteer.get("/v1/files")).status_code == 403


async def test_bytes_stay_where_it_is_not_known_whether_the_file_is_in_the_list(
    relay: RunningRelay, assistant: openai.AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = relay.services.store
    add_file = store.add_file

    async def committed_and_gone(*arguments: Any) -> bytes | None:
        await add_file(*arguments)
        raise Unavailable("the connection broke just then")

    monkeypatch.setattr(store, "add_file", committed_and_gone)
    with pytest.raises(openai.InternalServerError):
        await assistant.files.create(file=("lines.jsonl", LINES), purpose="batch")
    (made,) = (await assistant.files.list()).data
    assert (await assistant.files.content(made.id)).read() == LINES


async def test_a_file_whose_bytes_could_not_be_removed_can_be_deleted_again(
    relay: RunningRelay, assistant: openai.AsyncOpenAI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = await assistant.files.create(file=("lines.jsonl", LINES), purpose="batch")

    async def away(_: object, key: str) -> None:
        raise Unavailable(f"{key} cannot be reached")

    with monkeypatch.context() as outage:
        outage.setattr(Folder, "remove", away)
        with pytest.raises(openai.InternalServerError):
            await assistant.files.delete(made.id)
    assert (await assistant.files.delete(made.id)).deleted
    assert list((tmp_path / "files").iterdir()) == []


# ---- requests that come again ----


async def test_an_upload_that_comes_again_is_answered_as_before(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    headers = {"Idempotency-Key": "once"}
    answers = await asyncio.gather(*(http.post("/v1/files", headers=headers, **FORM) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len((await http.get("/v1/files")).json()["data"]) == 1
    assert len(list((tmp_path / "files").iterdir())) == 1


async def test_a_key_that_came_with_another_upload_is_refused(
    http: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    headers = {"Idempotency-Key": "once"}
    assert (await http.post("/v1/files", headers=headers, **FORM)).status_code == 200
    other: dict[str, Any] = FORM | {"files": {"file": ("lines.jsonl", b"other")}}
    refused = await http.post("/v1/files", headers=headers, **other)
    assert_error(refused, 409, "idempotency_key_reused", "invalid_request_error")
    assert (await stranger.post("/v1/files", headers=headers, **other)).status_code == 200, (
        "keys are their own"
    )
    endless = await http.post("/v1/files", headers={"Idempotency-Key": "a" * 256}, **FORM)
    assert_error(endless, 400, "invalid_request", "invalid_request_error")


async def test_a_tokens_files_may_have_so_many_bytes(sqlite_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    async with running_relay(sqlite_file, files=str(folder), token_file_bytes=3 * LEAST_BYTES) as relay:
        async with client_of(relay, await relay.token("client")) as http:
            posts = await asyncio.gather(*(http.post("/v1/files", **FORM) for _ in range(5)))
            assert sorted(post.status_code for post in posts) == [200] * 3 + [409] * 2
            refused = next(post for post in posts if post.status_code == 409)
            error = assert_error(refused, 409, "quota_exceeded", "invalid_request_error")
            assert "TOKEN_FILE_BYTES" in error["message"]
            assert len(list(folder.iterdir())) == 3
            assert relay.refusals("quota_exceeded") == 2
            taken = next(post.json()["id"] for post in posts if post.status_code == 200)
            await http.delete(f"/v1/files/{taken}")
            big: dict[str, Any] = {
                "files": {"file": ("big", b"x" * (LEAST_BYTES + 1))},
                "data": {"purpose": "batch"},
            }
            assert (await http.post("/v1/files", **big)).status_code == 409
            assert (await http.post("/v1/files", **FORM)).status_code == 200
        async with client_of(relay, await relay.token("client", "stranger")) as stranger:
            assert (await stranger.post("/v1/files", **FORM)).status_code == 200


async def test_a_token_may_have_so_many_open_batches(sqlite_file: Path, tmp_path: Path) -> None:
    async with (
        running_relay(sqlite_file, files=str(tmp_path / "files"), token_batches=2) as relay,
        client_of(relay, await relay.token("client")) as http,
    ):
        line = {"custom_id": "a", "method": "POST", "url": CHAT, "body": QUESTION}
        form: dict[str, Any] = FORM | {"files": {"file": ("lines.jsonl", json.dumps(line).encode())}}
        file_id = (await http.post("/v1/files", **form)).json()["id"]
        asked = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
        await relay.serving()  # and nobody has the head: the batches wait
        posts = await asyncio.gather(*(http.post("/v1/batches", json=asked) for _ in range(3)))
        assert sorted(post.status_code for post in posts) == [200, 200, 409]
        refused = next(post for post in posts if post.status_code == 409)
        assert_error(refused, 409, "quota_exceeded", "invalid_request_error")
        taken = next(post.json()["id"] for post in posts if post.status_code == 200)
        await http.post(f"/v1/batches/{taken}/cancel")

        async def has_room() -> bool:
            return (await http.post("/v1/batches", json=asked)).status_code == 200

        async with asyncio.timeout(DEADLINE):
            while not await has_room():
                pass


async def test_a_token_with_all_its_keys_uploads_so_many_files_at_once(
    relay: RunningRelay, http: httpx.AsyncClient
) -> None:
    """Each is on the relay's disk before it counts among the token's files."""
    key = (await http.post("/api/tokens", json={"kind": "client", "name": "a key"})).json()["token"]
    form = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nlines\r\n--b--\r\n'
    )
    may_end = asyncio.Event()
    under_way = relay.services.uploading._owners

    async def slowly() -> AsyncIterator[bytes]:
        yield form[:-20]
        await may_end.wait()
        yield form[-20:]

    def upload(client: httpx.AsyncClient, content: Any) -> Coroutine[Any, Any, httpx.Response]:
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        return client.post("/v1/files", content=content, headers=kind)

    async with client_of(relay, key) as with_key, asyncio.TaskGroup() as tasks:
        begun = [tasks.create_task(upload(http, slowly())) for _ in range(MOST_AT_ONCE)]
        await eventually(lambda: under_way.total() == MOST_AT_ONCE)
        refusal = await upload(with_key, form)
        assert_error(refusal, 429, "rate_limit_exceeded", "rate_limit_error")
        assert int(refusal.headers["Retry-After"]) > 0
        begun[0].cancel()
        await eventually(lambda: under_way.total() == MOST_AT_ONCE - 1)
        assert (await upload(with_key, form)).status_code == 200
        may_end.set()
    assert {one.result().status_code for one in begun[1:]} == {200}
    assert not under_way
