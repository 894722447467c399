"""`websockets`' client connection with a short way for whole messages, in both directions.

The library hands messages over through a queue and a task, and takes them under a lock in a coroutine.
Where nobody has to wait, that is most of a message's cost on the way of a token; most of the rest is its
parser, which a frame that was read as a whole needs not. Handshake, masking, size limits and closing stay the
library's; how much may wait is for those who are called to say.

Does not know what messages say.
"""

import secrets
from collections.abc import Callable

from websockets.asyncio.client import ClientConnection
from websockets.frames import (
    Frame,
    Opcode,
    apply_mask,  # pyright: ignore[reportPrivateImportUsage] - in C where there is one
)
from websockets.protocol import Event, State

from schema.whole_messages import KEY_BYTES, WHOLE_BINARY, awaits_message, message_head, payload_start

OnMessage = Callable[[str | bytes], None]
_DATA = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


class MessageConnection(ClientConnection):
    """Belongs to the event loop's thread. For `websockets.connect(create_connection=MessageConnection)`."""

    _on_message: OnMessage | None = None
    _for_recv = 0
    """Messages that `next_message` has still to give, or that have begun to arrive for it."""

    def deliver_to(self, on_message: OnMessage | None) -> None:
        """Call `on_message`, which may not raise, for each message as it arrives; None: nobody.

        What comes while others wait for `next_message` goes there too, so that none overtakes: what came
        earlier, or comes in fragments. So somebody has to wait for the next message all the same.
        """
        self._on_message = on_message

    async def next_message(self) -> str | bytes:
        """The next message that was not delivered. Raises ConnectionClosed."""
        message = await self.recv()
        self._for_recv -= 1
        return message

    def send_now(self, message: str | bytes) -> bool:
        """Send a message; False, and nothing sent, while the socket takes no more or is closing."""
        is_open = self.protocol.state is State.OPEN and not self.protocol.expect_continuation_frame
        if self.paused or not is_open or self.transport.is_closing():
            return False
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
            self.send_data()
        else:
            key = secrets.token_bytes(KEY_BYTES)
            head = message_head(WHOLE_BINARY, len(message), key)
            self.transport.write(head + apply_mask(message, key))
        return True

    def data_received(self, data: bytes) -> None:
        if not self._takes_all(data):
            super().data_received(data)

    def _takes_all(self, data: bytes) -> bool:
        """Whether what was read was one frame, which is handled already."""
        on_message, protocol = self._on_message, self.protocol
        if on_message is None or self._for_recv or not data or data[0] != WHOLE_BINARY:
            return False
        is_between = protocol.current_size is None and awaits_message(protocol.parser)
        if not is_between or protocol.state is not State.OPEN or len(data) > (protocol.max_message_size or 0):
            return False
        start = payload_start(data, is_masked=False)
        if start is not None:
            on_message(data[start:])
        return start is not None

    def process_event(self, event: Event) -> None:
        if not isinstance(event, Frame) or event.opcode not in _DATA:
            super().process_event(event)
            return
        message = _whole(event)
        if message is not None and self._on_message is not None and not self._for_recv:
            self._on_message(message)
            return
        if event.opcode is not Opcode.CONT:
            self._for_recv += 1
        super().process_event(event)


def _whole(frame: Frame) -> str | bytes | None:
    """The message that a frame is; None for a fragment, and for what the library has to refuse."""
    if not frame.fin or frame.opcode is Opcode.CONT:
        return None
    if frame.opcode is Opcode.BINARY:
        return bytes(frame.data)
    try:
        return bytes(frame.data).decode()
    except UnicodeDecodeError:
        return None
