"""The head dies: whoever writes a reply, before it or in its midst; the reader notices a pause at most."""

import signal

import pytest

from tests.chaos.thicket import FIRST, HEADS, THIRD, Thicket, WholeReply, assert_complete
from tests.garden import Chat

QUESTION = "3 14 159 26 5 358"
LONG_QUESTION = " ".join(str(7 * number % 509) for number in range(1000))
LONG = 250


@pytest.fixture
def whole(thicket: Thicket) -> Thicket:
    """The swarm with a spare for its heads, and one for the last blocks."""
    thicket.want_spares(FIRST, THIRD)
    return thicket


class TestAHeadThatDies:
    def test_in_decode_is_followed_by_another(self, whole: Thicket) -> None:
        before = whole.undisturbed(QUESTION, LONG)
        continued = whole.metric("corolla_continued_replies_total")
        with whole.garden.chat(QUESTION, LONG) as chat:
            chat.wait_for_text()
            whole.kill(whole.used(FIRST))
            assert_complete(chat, before)
        assert whole.metric("corolla_continued_replies_total") == continued + 1
        whole.garden.wait_for_no_sessions()

    def test_in_prefill_is_followed_by_another(self, whole: Thicket) -> None:
        """The last hops stand still, so that the prompt cannot be through before the head is dead."""
        before = whole.undisturbed(LONG_QUESTION, LONG)
        last = whole.serving(THIRD)
        whole.signal(signal.SIGSTOP, *last)
        try:
            with whole.garden.chat(LONG_QUESTION, LONG) as chat:
                whole.kill(whole.used(FIRST))
                assert not chat.deltas
                whole.signal(signal.SIGCONT, *last)
                assert_complete(chat, before)
        finally:
            whole.signal(signal.SIGCONT, *last)

    def test_of_a_reply_that_is_not_streamed_is_followed_by_another(self, whole: Thicket) -> None:
        before = whole.undisturbed(QUESTION, LONG)
        reply = WholeReply(whole.garden, QUESTION, LONG)
        whole.kill(whole.used(FIRST))
        assert reply.text == before

    def test_with_no_other_one_leaves_an_error_in_the_apis_shape(self, whole: Thicket) -> None:
        with whole.garden.chat(QUESTION, 1500) as streamed:
            streamed.wait_for_text()
            whole.kill(*HEADS)
            streamed.wait_for_end()
        assert (streamed.finish_reason, streamed.is_done) == (None, False)
        assert streamed.error is not None
        assert (streamed.error["type"], streamed.error["code"]) == ("server_error", "generation_failed")
        assert "send it again" in streamed.error["message"]


def test_replies_of_both_heads_go_on_when_one_dies(whole: Thicket) -> None:
    """One is the dead one's own, the other may have had it for a hop."""
    questions = [f"{QUESTION} {number}" for number in range(4)]
    before = [whole.undisturbed(question, LONG) for question in questions]
    chats: list[Chat] = [whole.garden.chat(question, LONG) for question in questions]
    for chat in chats:
        chat.__enter__()
    for chat in chats:
        chat.wait_for_text()
    whole.kill(whole.used(FIRST))
    for chat, text in zip(chats, before, strict=True):
        assert_complete(chat, text)
        chat.__exit__()
