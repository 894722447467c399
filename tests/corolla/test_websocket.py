"""corolla/websocket.py against the library's server: what was sent arrives, whole and in order, both ways."""

from collections.abc import AsyncIterator
from typing import cast

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from corolla.websocket import MessageConnection
from tests.corolla.fakes import until

SIZES = [0, 1, 125, 126, 65_535, 65_536, 300_000]
PIECES = "pieces"
"""Asks the server for the next message in fragments."""


async def echo(connection: ServerConnection) -> None:
    is_next_in_pieces = False
    async for message in connection:
        if message == PIECES:
            is_next_in_pieces = True
        elif is_next_in_pieces:
            await connection.send([message[:2], message[2:]])
            is_next_in_pieces = False
        else:
            await connection.send(message)


@pytest.fixture
async def connection() -> AsyncIterator[MessageConnection]:
    async with serve(echo, "127.0.0.1", 0, compression=None) as server:
        (host, port) = server.sockets[0].getsockname()
        url = f"ws://{host}:{port}"
        async with connect(url, compression=None, create_connection=MessageConnection) as connected:
            yield cast(MessageConnection, connected)


@pytest.mark.parametrize("size", SIZES)
async def test_a_message_of_any_length_arrives_as_it_was_sent(
    connection: MessageConnection, size: int
) -> None:
    """The library's server refuses what is not masked as it should be."""
    arrived: list[str | bytes] = []
    connection.deliver_to(arrived.append)
    message = bytes(number % 251 for number in range(size))
    assert connection.send_now(message)
    await until(lambda: arrived)
    assert arrived == [message]


async def test_a_frame_that_is_read_as_a_whole_spares_the_librarys_parser(
    connection: MessageConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []
    receive = connection.protocol.receive_data
    monkeypatch.setattr(
        connection.protocol, "receive_data", lambda data: (parsed.append(data), receive(data))[1]
    )
    arrived: list[str | bytes] = []
    connection.deliver_to(arrived.append)
    assert connection.send_now(b"frame")
    await until(lambda: arrived)
    assert parsed == []
    assert connection.send_now("text")
    await until(lambda: len(arrived) == 2)
    assert arrived == [b"frame", "text"]
    assert len(parsed) == 1


async def test_nothing_overtakes_a_message_in_fragments(connection: MessageConnection) -> None:
    arrived: list[str | bytes] = []
    connection.deliver_to(arrived.append)
    for message in (b"first", PIECES, b"second"):
        assert connection.send_now(message)
    assert await connection.next_message() == b"second"
    assert arrived == [b"first"]
    assert connection.send_now(b"third")
    await until(lambda: len(arrived) == 2)
    assert arrived == [b"first", b"third"]


async def test_many_messages_in_one_read_arrive_in_order(connection: MessageConnection) -> None:
    arrived: list[str | bytes] = []
    connection.deliver_to(arrived.append)
    messages = [bytes([number]) * number for number in range(200)]
    for message in messages:
        assert connection.send_now(message)
    await until(lambda: len(arrived) == len(messages))
    assert arrived == messages


async def test_while_nobody_is_delivered_to_messages_wait(connection: MessageConnection) -> None:
    assert connection.send_now(b"one")
    assert await connection.next_message() == b"one"
