"""A connection to a relay, real or scripted: what it is told, what it hears and sends, and how it ends."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from benchmarks.processes import RelayProcess, relay, serving_relay
from corolla import link as link_module
from corolla.link import RelayLink, dial, is_final
from schema.credentials import new_credential, parse_credential
from schema.errors import (
    CorollaError,
    Forbidden,
    GenerationFailed,
    InvalidRequest,
    JoinRefused,
    MalformedFrame,
    MalformedMessage,
    NotServing,
    QueueFull,
    Replaced,
    Unauthorized,
    Unavailable,
    Unresponsive,
    UnsupportedVersion,
)
from schema.frames import FrameType, parse_header
from schema.ids import new_session_id
from schema.messages import (
    ErrorInfo,
    Goodbye,
    Heartbeat,
    RouteRequest,
    Serving,
    decode_from_peer,
    encode_message,
)
from schema.outbox import Urgency
from schema.protocol import MAX_FRAME_BYTES
from tests.corolla.links import (
    PATIENCE_SECONDS,
    Arrivals,
    ending,
    frame,
    listen,
    options_for,
    read_nothing,
    refusal,
    running,
    saying,
    scripted,
)

# ---- a real relay -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[RelayProcess]:
    with relay("tiny", HEARTBEAT_SECONDS="0.3") as process:
        yield process


@pytest.fixture(scope="module")
def token(server: RelayProcess) -> str:
    return server.token("client", "tester")


class TestARelay:
    async def test_welcomes_a_peer_with_its_models(self, server: RelayProcess, token: str) -> None:
        link = await dial(options_for(server.url, token))
        async with running(link, Arrivals()):
            assert link.welcome.models == ["tiny"]

    async def test_knows_a_process_again_and_no_other(self, server: RelayProcess, token: str) -> None:
        options = options_for(server.url, token)
        ids: list[str] = []
        for one in (options, options, options_for(server.url, token)):
            link = await dial(one)
            async with running(link, Arrivals()):
                ids.append(link.peer_id)
        assert ids[0] == ids[1] != ids[2]

    async def test_keeps_a_silent_client_by_heartbeats(self, server: RelayProcess, token: str) -> None:
        link = await dial(options_for(server.url, token))
        arrivals = Arrivals()
        async with running(link, arrivals) as task:
            patience = 5 * link.welcome.heartbeat_seconds
            done, _ = await asyncio.wait({task}, timeout=patience)
            assert not done
            link.send_message(RouteRequest(request="1", model="tiny", session=new_session_id().hex()))
            await arrivals.wait_for(lambda: arrivals.messages)

    async def test_refuses_a_wrong_token_in_its_own_words(self, server: RelayProcess) -> None:
        error = await refusal(options_for(server.url, str(new_credential("client", server.url))))
        assert isinstance(error, Unauthorized)
        assert "ask the relay's operator" in error.message
        assert is_final(error)

    async def test_ends_the_link_of_a_revoked_token(self, server: RelayProcess) -> None:
        revoked = server.token("client", "soon revoked")
        link = await dial(options_for(server.url, revoked))
        waiting = asyncio.create_task(ending(link))
        await asyncio.to_thread(server.operate, "token", "revoke", parse_credential(revoked).id)
        error = await waiting
        assert isinstance(error, Unauthorized)
        assert "revoked" in error.message
        assert isinstance(await refusal(options_for(server.url, revoked)), Unauthorized)

    async def test_that_stops_can_be_dialled_again_when_it_is_back(self, token: str) -> None:
        with relay("tiny") as first:
            options = options_for(first.url, first.token("client", "tester"))
            link = await dial(options)
            first.process.terminate()
            error = await ending(link)
            assert isinstance(error, Unavailable)
            assert not is_final(error)
            await asyncio.to_thread(first.process.wait)
            assert isinstance(await refusal(options), Unavailable)
            with serving_relay(first.environment, first.folder):
                again = await dial(options)
                async with running(again, Arrivals()):
                    assert again.peer_id == link.peer_id

    async def test_that_is_killed_is_not_final(self) -> None:
        with relay("tiny") as first:
            link = await dial(options_for(first.url, first.token("client", "tester")))
            first.process.kill()
            error = await ending(link)
        assert isinstance(error, Unavailable)
        assert not is_final(error)

    async def test_token_and_texts_are_in_no_log(
        self, server: RelayProcess, token: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        link = await dial(options_for(server.url, token))
        arrivals = Arrivals()
        async with running(link, arrivals):
            link.send_message(RouteRequest(request="1", model="a secret", session=new_session_id().hex()))
            await arrivals.wait_for(lambda: arrivals.messages)
        assert parse_credential(token).secret not in caplog.text
        assert "a secret" not in caplog.text


class TestWhatArrives:
    async def test_goes_to_the_receiver_but_for_heartbeats(self) -> None:
        behaviour = saying(encode_message(Heartbeat()), encode_message(Serving()), frame(FrameType.PREFILL))
        async with scripted(behaviour) as options:
            link, arrivals = await dial(options), Arrivals()
            async with running(link, arrivals):
                await arrivals.wait_for(lambda: arrivals.frames)
        assert arrivals.messages == [Serving()]
        assert [header.type for header in arrivals.frames] == [FrameType.PREFILL]

    async def test_of_an_unknown_type_is_skipped_and_counted(self) -> None:
        async with scripted(saying(frame(77), frame(FrameType.STEP))) as options:
            link, arrivals = await dial(options), Arrivals()
            async with running(link, arrivals):
                await arrivals.wait_for(lambda: arrivals.frames)
        assert (link.skipped_frames, len(arrivals.frames)) == (1, 1)

    @pytest.mark.parametrize(
        ("message", "kind"),
        [
            pytest.param("{", MalformedMessage, id="no JSON"),
            pytest.param(encode_message(Heartbeat())[:-1] + ',"kv_used":-1}', MalformedMessage, id="range"),
            pytest.param(b"\0" * 100, MalformedFrame, id="no frame"),
            pytest.param(frame()[:-1], MalformedFrame, id="half a frame"),
            pytest.param(b"\0" * (MAX_FRAME_BYTES + 1), Unavailable, id="too large"),
            pytest.param(
                encode_message(Goodbye(error=ErrorInfo.of(Replaced("connected again")))),
                Replaced,
                id="a goodbye",
            ),
        ],
    )
    async def test_that_cannot_be_ends_the_link_by_name(
        self, message: str | bytes, kind: type[CorollaError]
    ) -> None:
        async with scripted(saying(message)) as options:
            assert type(await ending(await dial(options))) is kind

    @pytest.mark.parametrize(
        ("code", "reason", "kind"),
        [
            (1000, "", Unavailable),
            (1012, "", Unavailable),
            (1009, "too big", Unavailable),
            (4999, "no such code", Unavailable),
            (4401, "unauthorized", Unauthorized),
        ],
    )
    async def test_as_a_close_alone_is_named_too(
        self, code: int, reason: str, kind: type[CorollaError]
    ) -> None:
        async def close(connection: ServerConnection) -> None:
            await connection.close(code, reason)

        async with scripted(close) as options:
            error = await ending(await dial(options))
        assert type(error) is kind
        assert reason in error.message or code in (1000, 1012)


class TestASilentRelay:
    async def test_is_left_after_the_heartbeats_that_it_missed(self) -> None:
        async with scripted(listen, heartbeat_seconds=0.02) as options:
            assert isinstance(await ending(await dial(options)), Unresponsive)

    async def test_hears_heartbeats_meanwhile(self) -> None:
        heard: list[object] = []

        async def count(connection: ServerConnection) -> None:
            while True:
                heard.append(decode_from_peer(await connection.recv()))

        async with scripted(count, heartbeat_seconds=0.02) as options:
            link = await dial(options)
            with pytest.raises(Unresponsive):
                await asyncio.wait_for(link.run(Arrivals(), lambda: Heartbeat(sessions=3)), PATIENCE_SECONDS)
        assert heard
        assert set(map(repr, heard)) == {repr(Heartbeat(sessions=3))}

    async def test_is_kept_while_it_says_anything(self) -> None:
        done = asyncio.Event()

        async def speak(connection: ServerConnection) -> None:
            for _ in range(6):
                await connection.send(encode_message(Heartbeat()))
                await asyncio.wait_for(connection.recv(), PATIENCE_SECONDS)
            done.set()
            await listen(connection)

        async with scripted(speak, heartbeat_seconds=0.2) as options:
            link = await dial(options)
            async with running(link, Arrivals()):
                await asyncio.wait_for(done.wait(), PATIENCE_SECONDS)


class TestWhatIsSent:
    async def test_leaves_in_the_order_of_its_urgency(self) -> None:
        heard: list[str | bytes] = []

        async def keep(connection: ServerConnection) -> None:
            while True:
                heard.append(await connection.recv())

        prefill, decode = frame(FrameType.PREFILL), frame(FrameType.STEP)
        async with scripted(keep) as options:
            link = await dial(options)
            link.send_frame(prefill, Urgency.PREFILL)
            link.send_frame(decode, Urgency.DECODE)
            link.send_message(Heartbeat(sessions=1))
            link.close()
            await link.run(Arrivals())
        assert heard == [encode_message(Heartbeat(sessions=1)), decode, prefill]

    async def test_beyond_the_outbox_is_refused_by_name_and_control_still_fits(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(link_module, "OUTBOX_BYTES", 4 * 1024 * 1024)
        large = frame(FrameType.PREFILL, bytes(1024 * 1024))
        async with scripted(read_nothing) as options:
            link = await dial(options)
            with pytest.raises(QueueFull, match="slower") as caught:
                fill(link, large)
            assert caught.value.retry_after
            link.send_message(Heartbeat())

    async def test_before_the_close_all_goes_out(self) -> None:
        heard: list[str | bytes] = []
        closed = asyncio.Event()

        async def keep(connection: ServerConnection) -> None:
            with suppress(ConnectionClosed):
                while True:
                    heard.append(await connection.recv())
            closed.set()

        async with scripted(keep) as options:
            link = await dial(options)
            for _ in range(20):
                link.send_frame(frame(FrameType.PREFILL, bytes(200_000)), Urgency.PREFILL)
            link.close()
            await asyncio.wait_for(link.run(Arrivals()), PATIENCE_SECONDS)
            await asyncio.wait_for(closed.wait(), PATIENCE_SECONDS)
        assert len(heard) == 20


def fill(link: RelayLink, message: bytes) -> None:
    for _ in range(1000):
        link.send_frame(message, Urgency.PREFILL)


def test_neither_token_nor_instance_key_is_shown() -> None:
    options = replace(options_for("http://127.0.0.1:1", "the token"), instance="f" * 32)
    assert "the token" not in repr(options)
    assert "f" * 32 not in repr(options)


@pytest.mark.parametrize(
    "kind", [Unauthorized, Forbidden, InvalidRequest, JoinRefused, Replaced, UnsupportedVersion]
)
def test_what_dialling_again_cannot_help_is_final(kind: type[CorollaError]) -> None:
    assert is_final(kind("why"))


@pytest.mark.parametrize(
    "kind", [Unavailable, Unresponsive, QueueFull, GenerationFailed, NotServing, CorollaError]
)
def test_what_may_pass_is_not_final(kind: type[CorollaError]) -> None:
    assert not is_final(kind("why"))


class TestMessagesInFragments:
    async def test_arrive_whole_and_in_order(self) -> None:
        whole = [frame(payload=bytes([number]) * 10) for number in range(6)]

        async def behave(connection: ServerConnection) -> None:
            await connection.recv()  # the link runs
            for number, message in enumerate(whole):
                await connection.send([message[:9], message[9:]] if number % 2 else message)
            await listen(connection)

        arrivals = Arrivals()
        async with scripted(behave) as options:
            link = await dial(options)
            async with running(link, arrivals):
                link.send_message(Heartbeat())
                await arrivals.wait_for(lambda: len(arrivals.frames) == len(whole))
        assert [header.session for header in arrivals.frames] == [parse_header(one).session for one in whole]


class TestMessagesBehindTheEnd:
    async def test_of_a_link_are_not_handled(self) -> None:
        goodbye = encode_message(Goodbye(error=ErrorInfo(code="replaced", message="another one")))

        async def behave(connection: ServerConnection) -> None:
            await connection.recv()  # the link runs
            for message in (goodbye, frame(), encode_message(Serving())):
                await connection.send(message)
            await listen(connection)

        arrivals = Arrivals()
        async with scripted(behave) as options:
            link = await dial(options)
            link.send_message(Heartbeat())
            assert isinstance(await ending(link, arrivals), Replaced)
        assert (arrivals.frames, arrivals.messages) == ([], [])
