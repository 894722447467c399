"""relay/batches/: who is told of a batch's end, how it is signed, and who is not to be reached."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest

from relay.batches import posting, telling
from relay.batches.posting import NotTold, Poster, is_public, read_url
from relay.batches.telling import FIRST_SECONDS, MOST_SECONDS, pause_after
from schema.errors import InvalidRequest
from tests.relay.core.answering_head import answering
from tests.relay.core.batch_client import ended, lines, submit
from tests.relay.core.rest_client import client_of
from tests.relay.core.support import running_relay
from tests.relay.core.waiting import eventually


class Receiver:
    """Takes what it is told, after refusing it as often as `refusals` says."""

    def __init__(self) -> None:
        self.told: list[tuple[dict[str, str], str]] = []
        self.refusals = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {
            name.lower(): value
            for name, _, value in (one.partition(": ") for one in head.splitlines()[1:] if one)
        }
        body = await reader.readexactly(int(headers["content-length"]))
        self.told.append((headers, body.decode()))
        status = "503 Later" if self.refusals else "204 No Content"
        self.refusals = max(0, self.refusals - 1)
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?a=b"
    async with server:
        yield receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as running:
        yield running


@pytest.fixture
def poster() -> Iterator[Poster]:
    with Poster() as running:
        yield running


async def test_the_end_of_a_batch_is_told_and_signed(
    sqlite_file: Path, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "FIRST_SECONDS", 0.0)
    receiver.refusals = 2
    async with running_relay(sqlite_file, files=str(tmp_path / "files"), private_webhooks=True) as relay:
        token = await relay.token("client")
        async with client_of(relay, token) as http:
            secret = (await http.get("/api/webhook-secret")).json()["secret"]
        async with (
            openai.AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=token, max_retries=0) as assistant,
            answering(await relay.serving(head=True)),
        ):
            batch = await submit(assistant, lines(2), metadata={"webhook_url": receiver.url})
            await ended(assistant, batch)
            failing = await submit(assistant, b"{", metadata={"webhook_url": receiver.url})
            await ended(assistant, failing)
            metrics = relay.services.metrics
            await eventually(lambda: metrics.webhooks["delivered"] == 2)
            events = [
                assistant.webhooks.unwrap(body, headers, secret=secret) for headers, body in receiver.told
            ]
            headers, body = receiver.told[-1]
            with pytest.raises(openai.InvalidWebhookSignatureError):
                assistant.webhooks.verify_signature(body.replace("batch", "botch"), headers, secret=secret)
    assert metrics.webhooks == {"delivered": 2, "tried_again": 2, "given_up": 0}
    assert {(event.type, getattr(event.data, "id", None)) for event in events} == {
        ("batch.completed", batch.id),
        ("batch.failed", failing.id),
    }
    assert len({headers["webhook-id"] for headers, _ in receiver.told}) == 2, "a second try has the same id"
    assert receiver.told[0][0]["host"] in receiver.url


async def test_nobody_on_a_private_network_is_told(
    sqlite_file: Path, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "KEEP_SECONDS", 0.0)
    async with running_relay(sqlite_file, files=str(tmp_path / "files")) as relay:
        token = await relay.token("client")
        async with openai.AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=token) as assistant:
            await ended(assistant, await submit(assistant, b"{", metadata={"webhook_url": receiver.url}))
            await eventually(lambda: relay.services.metrics.webhooks["given_up"] == 1)
            with pytest.raises(openai.BadRequestError, match="begins with https"):
                await submit(assistant, lines(1), metadata={"webhook_url": "ftp://a.example"})
    assert receiver.told == []


async def test_whoever_does_not_answer_keeps_nobody_else_from_being_told(
    sqlite_file: Path, tmp_path: Path, receiver: Receiver
) -> None:
    asked: list[asyncio.StreamWriter] = []
    over = asyncio.Event()

    async def keep_waiting(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer)
        await over.wait()
        writer.close()

    silent = await asyncio.start_server(keep_waiting, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/"
    async with (
        running_relay(sqlite_file, files=str(tmp_path / "files"), private_webhooks=True) as relay,
        silent,
    ):

        async def end_batches(name: str, url: str, count: int) -> None:
            token = await relay.token("client", name)
            async with openai.AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=token) as assistant:
                for _ in range(count):
                    await ended(assistant, await submit(assistant, b"{", metadata={"webhook_url": url}))

        await end_batches("many", url, telling.AT_ONCE + 1)
        await end_batches("one", receiver.url, 1)
        await eventually(lambda: len(receiver.told) == 1)
        assert len(asked) == telling.AT_ONCE_OF_ONE
        over.set()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b:1::101:101",
        "::127.0.0.1",
        "::1.1.1.1",
        "::ffff:0:7f00:1",
        "fec0::1",
    ],
)
def test_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_an_address_that_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "http://localhost:1/",
        "http://0x7f000001:1/",
        "http://2130706433:1/",
        "http://[::1]:1/",
        "http://[::ffff:127.0.0.1]:1/",
    ],
)
async def test_no_spelling_leads_to_this_machine(poster: Poster, url: str) -> None:
    with pytest.raises(NotTold):
        await poster.post(url, {}, b"", allow_private=False)


@pytest.mark.parametrize(
    "url",
    [
        "a.example",
        "ftp://a.example",
        "http://",
        "http://user@a.example",
        "http://a.example:port",
        "http://a.example/ b",
        "http://a.example/\r\nHost: b",
        "http://ä.example",
        "http://a.example/" + "a" * 512,
        "http://[::1",
    ],
)
def test_what_is_no_webhook(url: str) -> None:
    with pytest.raises(InvalidRequest):
        read_url(url)


@pytest.mark.parametrize("said", [b"", b"hello\n", b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", b"a" * 5000])
async def test_whoever_does_not_take_it_is_not_told(poster: Poster, said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(NotTold):
            await poster.post(url, {}, b"", allow_private=True)


async def test_nobody_is_waited_for_for_ever(poster: Poster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "SECONDS", 0.05)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with pytest.raises(NotTold):
            await poster.post(
                f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", {}, b"", allow_private=True
            )


async def test_whom_to_believe_is_read_once(poster: Poster, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts: list[ssl.SSLContext] = []

    def make() -> ssl.SSLContext:
        contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return contexts[-1]

    monkeypatch.setattr(ssl, "create_default_context", make)
    for _ in range(2):
        with pytest.raises(NotTold):
            await poster.post("https://127.0.0.1:1/", {}, b"", allow_private=True)
    assert len(contexts) == 1


def test_pauses_grow_to_an_hour() -> None:
    pauses = [pause_after(attempts) for attempts in range(1, 20)]
    assert (pauses[0], pauses[1], pauses[-1]) == (FIRST_SECONDS, 5 * FIRST_SECONDS, MOST_SECONDS)
    assert pauses == sorted(pauses)
