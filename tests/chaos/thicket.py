"""A garden in which every span grows twice, and how tests find out whom to hurt."""

import threading

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.garden import PATIENCE_SECONDS, Chat, Garden, wait_until

FIRST, SECOND, THIRD = SPANS = ("0:4", "4:8", "8:12")
SPARES = {
    "anemone": FIRST,
    "aster": FIRST,
    "bellis": SECOND,
    "begonia": SECOND,
    "crocus": THIRD,
    "clover": THIRD,
}
HEADS = [name for name, span in SPARES.items() if span == FIRST]
"""Whoever has the first blocks has a head too, and drives its replies over its own blocks."""
OTHER_MODEL = "other"
"""That nobody of the thicket serves."""


class Thicket:
    """Two volunteers for each span. `mend` before a test; then hurt it."""

    def __init__(self, garden: Garden) -> None:
        self.garden = garden

    def plant(self) -> None:
        """Return when everybody serves. Those with the first blocks go first: only they get a head."""
        for name in HEADS:
            self.garden.plant(name)
        wait_until(lambda: all(self.garden.status(name) for name in HEADS), "the heads have their spans")
        self.garden.mend()

    def mend(self) -> None:
        """Return when every block is served and nothing goes on. The dead are replaced behind our back."""
        self.garden.replant()
        wait_until(lambda: all(self.serving(span) for span in SPANS), "every span has a volunteer")
        self.garden.wait_for_no_sessions()

    def serving(self, span: str) -> list[str]:
        """Who serves these blocks now."""
        serving = {one.name for one in self.garden.relay.swarm().volunteers if one.state == "serving"}
        return [name for name, theirs in SPARES.items() if theirs == span and name in serving]

    def want_spares(self, *spans: str) -> None:
        """Return when each of these spans has two volunteers."""
        for span in spans or SPANS:
            wait_until(lambda span=span: len(self.serving(span)) == 2, f"blocks {span} have a spare")

    def undisturbed(self, words: str, max_tokens: int) -> str:
        """What the swarm says to this when nobody dies.

        Returns when nobody's heartbeat tells of that reply any more: they show who serves the next.
        """
        text = self.garden.say(words, max_tokens)
        self.garden.wait_for_no_sessions()
        return text

    def used(self, span: str) -> str:
        """The one that serves a session, as soon as one does."""

        def found() -> list[str]:
            sessions = {one.name: one.sessions for one in self.garden.relay.swarm().volunteers}
            return [name for name, theirs in SPARES.items() if theirs == span and sessions.get(name)]

        wait_until(found, f"somebody serves a session over {span}")
        return found()[0]

    def kill(self, *names: str) -> None:
        """Without a word, and dead when this returns."""
        for name in names:
            process = self.garden.volunteers[name].process
            process.kill()
            process.wait(PATIENCE_SECONDS)

    def signal(self, number: int, *names: str) -> None:
        for name in names:
            self.garden.volunteers[name].process.send_signal(number)

    def metric(self, name: str, **labels: str) -> float:
        """A counter of the relay's, the sum of all that have these labels."""
        text = httpx.get(f"{self.garden.relay.url}/metrics", trust_env=False).text
        samples = [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(sample.value for sample in samples)


class WholeReply:
    """A chat that is not streamed, on a thread of its own."""

    def __init__(self, garden: Garden, words: str, max_tokens: int) -> None:
        self.answer: httpx.Response | None = None
        self._thread = threading.Thread(target=self._ask, args=(garden, words, max_tokens), daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """What it said, as soon as it has."""
        self._thread.join(PATIENCE_SECONDS)
        assert self.answer is not None, "the reply did not come"
        assert self.answer.status_code == 200, self.answer.text
        (choice,) = self.answer.json()["choices"]
        assert choice["finish_reason"] == "length"
        return choice["message"]["content"]

    def _ask(self, garden: Garden, words: str, max_tokens: int) -> None:
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": words}],
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        headers = {"Authorization": f"Bearer {garden.tokens[0]}"}
        url = f"{garden.relay.url}/v1/chat/completions"
        self.answer = httpx.post(url, json=body, headers=headers, timeout=PATIENCE_SECONDS, trust_env=False)


def assert_complete(chat: Chat, text: str) -> None:
    """The stream has all of the undisturbed reply once, and its proper end."""
    chat.wait_for_end()
    assert (chat.error, chat.finish_reason, chat.is_done) == (None, "length", True)
    assert chat.text == text
