"""Those who neither go nor stay: stopped volunteers whose TCP is open, readers that do not read, flappers."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from benchmarks.plain_peer import Card, connect, facts
from tests.chaos.proxy import Proxy
from tests.chaos.thicket import OTHER_MODEL, SECOND, THIRD, Thicket, assert_complete
from tests.garden import PATIENCE_SECONDS, wait_until

QUESTION = "3 14 159 26 5 358"
LONG = 250
FLAPS = 12


class TestAVolunteerThatStalls:
    def test_is_out_of_the_routes_by_its_heartbeat_and_comes_back_by_itself(self, thicket: Thicket) -> None:
        thicket.want_spares(SECOND)
        garden = thicket.garden
        before, loads = garden.say(QUESTION), garden.log("bellis").count("weights loaded")
        thicket.signal(signal.SIGSTOP, "bellis")
        try:
            wait_until(lambda: garden.status("bellis") is None, "the stalled one is out of the routes")
            assert garden.say(QUESTION) == before
        finally:
            thicket.signal(signal.SIGCONT, "bellis")
        garden.relay.wait_until_serving(["bellis"])
        assert garden.say(QUESTION) == before
        assert garden.log("bellis").count("weights loaded") == loads

    def test_in_the_middle_of_a_reply_is_replaced_while_it_still_sleeps(self, thicket: Thicket) -> None:
        thicket.want_spares(THIRD)
        before = thicket.undisturbed(QUESTION, LONG)
        with thicket.garden.chat(QUESTION, LONG) as chat:
            chat.wait_for_text()
            stalled = thicket.used(THIRD)
            thicket.signal(signal.SIGSTOP, stalled)
            try:
                assert_complete(chat, before)
            finally:
                thicket.signal(signal.SIGCONT, stalled)
        thicket.garden.relay.wait_until_serving([stalled])
        thicket.garden.wait_for_no_sessions()

    def test_with_no_spare_is_waited_for(self, thicket: Thicket) -> None:
        before = thicket.garden.say(QUESTION, LONG)
        stalled = thicket.serving(THIRD)
        with thicket.garden.chat(QUESTION, LONG) as chat:
            chat.wait_for_text()
            thicket.signal(signal.SIGSTOP, *stalled)
            try:
                wait_until(lambda: not thicket.garden.model().complete, "they are out of the routes")
            finally:
                thicket.signal(signal.SIGCONT, *stalled)
            assert_complete(chat, before)
        thicket.garden.wait_for_no_sessions()


class FrozenReader:
    """A client that asks for a streamed reply, and reads from its socket only when it is told to."""

    def __init__(self, thicket: Thicket, words: str, tokens: int) -> None:
        address = urlsplit(thicket.garden.relay.url)
        self._socket = socket.socket()
        # Small packets and a small window, or the kernel would take the whole reply.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self._socket.settimeout(PATIENCE_SECONDS)
        self._socket.connect((address.hostname, address.port))
        body = msgspec.json.encode(
            {
                "model": "tiny",
                "messages": [{"role": "user", "content": words}],
                "max_tokens": tokens,
                "temperature": 0,
                "stream": True,
            }
        )
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n"
            f"Authorization: Bearer {thicket.garden.tokens[0]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + body)

    def kernel_bytes(self) -> int:
        """What the kernel holds of the reply, at either end of the connection."""
        port = f":{self._socket.getsockname()[1]:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        queues = [row[4].split(":") for row in rows if row[1].endswith(port) or row[2].endswith(port)]
        return sum(int(sent, 16) + int(received, 16) for sent, received in queues)

    def read(self) -> tuple[str, int]:
        """Everything that has waited: the reply's text, and how many bytes it came in."""
        with self._socket, self._socket.makefile("rb") as stream:
            lines = list(stream)
        events = [line[6:] for line in lines if line.startswith(b"data: {")]
        choices = [msgspec.json.decode(event)["choices"] for event in events]
        text = "".join(one[0]["delta"].get("content") or "" for one in choices if one)
        return text, sum(map(len, lines))


def test_a_reader_that_freezes_holds_up_nobody_else_and_gets_all_of_it_later(thicket: Thicket) -> None:
    before, other = thicket.garden.say(QUESTION, 600), thicket.garden.say("1 2 3", LONG)
    frozen = FrozenReader(thicket, QUESTION, 600)
    assert thicket.garden.say("1 2 3", LONG) == other
    thicket.garden.wait_for_no_sessions()  # it was written to its end all the same
    in_kernel = frozen.kernel_bytes()
    text, size = frozen.read()
    assert text == before
    # The rest has waited in the relay, whose socket took no more: how much it takes is the system's choice.
    assert 0 < in_kernel < size


class TestAFlappingPeer:
    def test_that_joins_and_leaves_again_and_again_harms_nobody(self, thicket: Thicket) -> None:
        """It serves another model, all the way to its probe, and drops its connection, many times."""
        garden = thicket.garden
        before = garden.say(QUESTION, LONG)
        token = garden.relay.token("volunteer", "flapper")

        async def flap() -> None:
            for _ in range(FLAPS):
                peer = await connect(garden.relay.url, Card(token, "flapper", facts(OTHER_MODEL, 4)))
                await peer.close()

        with garden.chat(QUESTION, LONG) as chat:
            chat.wait_for_text()
            asyncio.run(flap())
            assert_complete(chat, before)
        wait_until(lambda: garden.status("flapper") is None, "it is gone")
        assert garden.say(QUESTION, LONG) == before

    def test_under_a_reply_is_done_without(self, thicket: Thicket) -> None:
        """The connection of a real one breaks again and again while it is a hop; others are there, later."""
        garden = thicket.garden
        thicket.want_spares(SECOND)
        before = garden.say(QUESTION, 600)
        others = ("bellis", "begonia")
        with behind_a_proxy(thicket, "gentian", SECOND) as proxy:
            for one in others:
                garden.pause(one)
            with garden.chat(QUESTION, 600) as chat:
                chat.wait_for_text()
                for _ in range(2):
                    proxy.drop()
                    wait_until(lambda: garden.state("gentian") == "serving", "it is back")
                for one in others:
                    garden.resume(one)
                proxy.drop()
                assert_complete(chat, before)


@contextmanager
def behind_a_proxy(thicket: Thicket, name: str, span: str) -> Iterator[Proxy]:
    """One more volunteer, whose connection can be cut."""
    address = urlsplit(thicket.garden.relay.url)
    assert address.hostname is not None
    assert address.port is not None
    with Proxy(address.hostname, address.port).running() as proxy:
        behind = thicket.garden.plant(name, "--blocks", span, "--relay", f"http://127.0.0.1:{proxy.port}")
        try:
            thicket.garden.relay.wait_until_serving([name], [behind])
            yield proxy
        finally:
            behind.process.kill()
            behind.process.wait(PATIENCE_SECONDS)
            del thicket.garden.volunteers[name]
