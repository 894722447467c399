"""Buses inside one process that fail as the network does: those of tests."""

from relay.bus import Crossing, InProcessBus, Listener, ReplicaKey


class UnsteadyBus(InProcessBus):
    """A bus that can be away."""

    def __init__(self, crossing: Crossing) -> None:
        super().__init__(crossing)
        self._is_away = False
        self._listening: Listener | None = None

    async def open(self, key: ReplicaKey, listener: Listener) -> None:
        self._listening = listener
        await super().open(key, listener)

    async def publish(self, subject: str, message: bytes) -> bool:
        return not self._is_away and await super().publish(subject, message)

    def take(self, message: bytes) -> None:
        if not self._is_away:
            super().take(message)

    def set_away(self, is_away: bool) -> None:
        """Lose the connection, or have it back."""
        self._is_away = is_away
        if self._listening is None:
            return
        if is_away:
            self._listening.on_bus_down()
        else:
            self._listening.on_bus_up()
