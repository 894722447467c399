"""A WebSocket client that costs almost nothing, so that the server is what is measured.

Handshakes through the `websockets` library, then writes frames that were masked beforehand and
counts the bytes that come back, without looking into them.
"""

import socket
import time
from collections.abc import Callable

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

CONNECT_SECONDS = 30.0


def masked(payload: bytes, opcode: Opcode = Opcode.BINARY) -> bytes:
    """A complete client frame, as it goes over TCP."""
    return Frame(opcode, payload).serialize(mask=True)


def framed_size(payload_bytes: int) -> int:
    """Bytes of an unmasked server frame with this payload."""
    return len(Frame(Opcode.BINARY, bytes(payload_bytes)).serialize(mask=False))


class RawWebSocket:
    """One connection. Blocking; belongs to one thread at a time for each direction."""

    def __init__(self, url: str, token: str | None = None) -> None:
        uri = parse_uri(url)
        self.socket = connect_when_up(uri.host, uri.port)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._protocol = ClientProtocol(uri)
        request = self._protocol.connect()
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        self._protocol.send_request(request)
        self._flush()
        while self._protocol.handshake_exc is None and self._protocol.state.name == "CONNECTING":
            self._protocol.receive_data(self.socket.recv(65536))
        if self._protocol.handshake_exc is not None:
            raise self._protocol.handshake_exc
        self._protocol.events_received()

    def send_text(self, text: str) -> None:
        self._protocol.send_text(text.encode())
        self._flush()

    def receive_text(self) -> str:
        """The next message, decoded; only before `receive_bytes` is used."""
        while True:
            for event in self._protocol.events_received():
                if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                    return bytes(event.data).decode()
            self._protocol.receive_data(self.socket.recv(65536))

    def receive_bytes(self, count: int, buffer: memoryview) -> None:
        """Read exactly `count` bytes off TCP and throw them away. Raises ConnectionError."""
        while count:
            received = self.socket.recv_into(buffer[: min(count, len(buffer))])
            if not received:
                raise ConnectionError("the server has closed the connection")
            count -= received

    def close(self) -> None:
        self.socket.close()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            self.socket.sendall(data)


def connect_when_up(host: str, port: int) -> socket.socket:
    """A TCP connection to a server that may still be starting."""
    return wait_for(lambda: socket.create_connection((host, port), CONNECT_SECONDS))


def wait_for(attempt: Callable[[], socket.socket]) -> socket.socket:
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return attempt()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
