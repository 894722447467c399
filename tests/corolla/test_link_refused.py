"""Dialling what is no relay, or one that does not let this peer in: every way is named, with its remedy."""

import asyncio

import pytest
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.processes import free_port
from corolla import link as link_module
from corolla.link import dial
from schema.errors import (
    CorollaError,
    InvalidRequest,
    MalformedMessage,
    Unavailable,
    UnexpectedMessage,
    Unresponsive,
    UnsupportedVersion,
)
from schema.messages import ErrorInfo, Goodbye, Serving, encode_message
from tests.corolla.links import (
    Arrivals,
    frame,
    http_answer,
    listen,
    options_for,
    refusal,
    running,
    scripted,
    tcp_server,
)


class TestNoRelay:
    async def test_where_nobody_listens(self) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        error = await refusal(options_for(url))
        assert isinstance(error, Unavailable)
        assert url in error.message
        assert "check the address" in error.message

    async def test_at_an_address_that_is_none(self) -> None:
        assert isinstance(await refusal(options_for("relay.example")), InvalidRequest)

    @pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "403 Forbidden", "500 Oops"])
    async def test_but_another_http_server(self, status: str) -> None:
        async with tcp_server(http_answer(status, "<html>hello</html>")) as url:
            error = await refusal(options_for(url))
        assert isinstance(error, Unavailable)
        assert f"status {status[:3]}: is this a Corolla relay?" in error.message

    async def test_but_a_server_of_another_protocol(self) -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            await writer.drain()

        async with tcp_server(greet) as url:
            assert isinstance(await refusal(options_for(url)), Unavailable)

    async def test_but_a_server_that_hangs_up(self) -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()

        async with tcp_server(hang_up) as url:
            assert isinstance(await refusal(options_for(url)), Unavailable)

    async def test_but_a_server_that_says_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(link_module, "HANDSHAKE_SECONDS", 0.1)

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with tcp_server(say_nothing) as url:
            error = await refusal(options_for(url))
        assert isinstance(error, Unavailable)
        assert "timed out" in error.message

    async def test_behind_a_proxy_that_is_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
        assert isinstance(await refusal(options_for("http://relay.example")), Unavailable)

    @pytest.mark.parametrize("proxy", ["gopher://127.0.0.1:70", "socks5://127.0.0.1:1080"])
    async def test_behind_a_proxy_that_cannot_be_used(
        self, proxy: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", proxy)
        error = await refusal(options_for("http://relay.example"))
        assert isinstance(error, InvalidRequest)
        assert "NO_PROXY" in error.message

    @pytest.mark.parametrize("text", ["two\r\nlines", "corolla-client.ä.b.", "a\tb"])
    async def test_for_a_token_that_cannot_be_one(self, text: str) -> None:
        error = await refusal(options_for("http://127.0.0.1:1", text))
        assert isinstance(error, InvalidRequest)
        assert text not in error.message


class TestHandshake:
    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            pytest.param(
                encode_message(Goodbye(error=ErrorInfo.of(UnsupportedVersion("update")))),
                UnsupportedVersion,
                id="a goodbye",
            ),
            pytest.param(encode_message(Serving()), UnexpectedMessage, id="another message"),
            pytest.param("hello?", MalformedMessage, id="no message"),
            pytest.param(frame(), MalformedMessage, id="a frame"),
        ],
    )
    async def test_that_ends_otherwise_is_named(self, answer: str | bytes, kind: type[CorollaError]) -> None:
        async with scripted(listen, answer=answer) as options:
            assert type(await refusal(options)) is kind

    async def test_that_is_not_answered_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def handle(connection: ServerConnection) -> None:
            await listen(connection)

        async with serve(handle, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            monkeypatch.setattr(link_module, "HANDSHAKE_SECONDS", 0.1)
            error = await refusal(options_for(url))
        assert isinstance(error, Unresponsive)

    async def test_needs_no_proxy_on_this_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
        async with scripted(listen) as options:
            link = await dial(options)
            async with running(link, Arrivals()):
                pass
