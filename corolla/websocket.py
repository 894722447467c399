"""`websockets`' client connection with a short way for whole messages, in both directions.

The library hands messages over through a queue and a task, and takes them under a lock in a coroutine. Where
nobody has to wait, that is most of a message's cost on the way of a token. Handshake, masking, limits, flow
control and closing stay the library's. Does not know what messages say.
"""

from collections.abc import Callable

from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

OnMessage = Callable[[str | bytes], None]


class MessageConnection(ClientConnection):
    """Belongs to the event loop's thread. For `websockets.connect(create_connection=MessageConnection)`."""

    _on_message: OnMessage | None = None

    def deliver_to(self, on_message: OnMessage | None) -> None:
        """Call `on_message`, which may not raise, for each message as it arrives; None: `recv` again.

        A message that comes in fragments goes to `recv`, and all after it, so that none overtakes.
        """
        self._on_message = on_message

    def send_now(self, message: str | bytes) -> bool:
        """Send a message; False, and nothing sent, while the socket takes no more or is closing."""
        if self.paused or self.protocol.state is not State.OPEN or self.transport.is_closing():
            return False
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)
        self.send_data()
        return True

    def process_event(self, event: Event) -> None:
        on_message = self._on_message
        if on_message is None or not isinstance(event, Frame):
            super().process_event(event)
        elif event.fin and event.opcode is Opcode.BINARY:
            on_message(bytes(event.data))
        elif event.fin and event.opcode is Opcode.TEXT:
            on_message(bytes(event.data).decode(errors="replace"))
        else:
            if not event.fin:
                self._on_message = None
            super().process_event(event)
