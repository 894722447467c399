"""What becomes of replies when processes die, stall, leave or come back, and what each process says."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.processes import RelayProcess, Volunteer, free_port, process, relay, volunteer
from schema.credentials import new_credential, parse_credential
from tests.garden import (
    HEAD,
    HEARTBEAT_SECONDS,
    LAST,
    MIDDLE,
    MODEL,
    PATIENCE_SECONDS,
    SPANS,
    Chat,
    Garden,
    garden,
    make_model,
    wait_until,
)

pytestmark = pytest.mark.slow

QUESTION = "3 14 159 26 5 358"
LONG = 800
"""Tokens of a reply in whose midst something happens."""
REPLY_WITHIN_DRAIN = 200
"""Tokens of a reply which even a slow machine writes to its end within the relay's `DRAIN_SECONDS`."""
STEPS_IN = (
    "relay reached",
    "token accepted",
    "span given",
    "weights loaded",
    "probe passed",
    "serving blocks",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def shared_garden(model: Path) -> Iterator[Garden]:
    with garden(model) as planted:
        yield planted


@pytest.fixture
def swarm(shared_garden: Garden) -> Iterator[Garden]:
    """The swarm, whole and at rest."""
    shared_garden.mend()
    try:
        yield shared_garden
    except BaseException:
        print(shared_garden.last_words())
        raise


def leave(volunteer: Volunteer, number: int = signal.SIGTERM) -> int:
    """Tell a volunteer to leave; its exit code."""
    volunteer.process.send_signal(number)
    return volunteer.process.wait(PATIENCE_SECONDS)


def assert_broken(chat: Chat) -> dict[str, str]:
    """The reply ended with an error event, and with nothing that a client could take for an end."""
    chat.wait_for_end()
    assert (chat.finish_reason, chat.is_done) == (None, False)
    assert chat.error is not None
    return chat.error


class TestReplies:
    def test_at_once_are_the_same_as_alone(self, swarm: Garden) -> None:
        questions = [f"{QUESTION} {number}" for number in range(8)]
        alone = [swarm.say(question) for question in questions]
        assert len(set(alone)) > 4
        assert swarm.say_at_once(questions, readers=[0] * 8) == alone

    def test_reach_those_who_asked(self, swarm: Garden) -> None:
        questions = ["1 2 3", "400 300 200 100"]
        alone = [swarm.say(question) for question in questions]
        assert alone[0] != alone[1]
        assert swarm.say_at_once(questions * 2, readers=[0, 1, 0, 1]) == alone * 2

    def test_nobody_reads_any_more_are_ended_on_every_hop(self, swarm: Garden) -> None:
        with swarm.chat(QUESTION) as chat:
            chat.wait_for_text()
            wait_until(
                lambda: all(one.sessions == 1 for one in swarm.relay.swarm().volunteers),
                "every hop holds the session",
            )
        swarm.wait_for_no_sessions()
        assert chat.finish_reason is None

    def test_that_begin_alike_compute_only_what_is_new(self, swarm: Garden) -> None:
        system = " ".join(map(str, range(100, 160)))

        def ask(words: str) -> tuple[str, int]:
            with swarm.chat(f"{system} {words}", max_tokens=16) as chat:
                chat.wait_for_end()
            return chat.text, chat.cached_tokens

        first, second = ask("1 2 3"), ask("4 5 6 7")
        assert (first[1], second[1]) == (0, 60)
        assert (ask("1 2 3"), ask("4 5 6 7")) == ((first[0], 62), (second[0], 63))
        assert ask(f"1 2 3 {first[0]} 8 9")[1] == 63 + 15  # the last token was never computed
        swarm.volunteers[MIDDLE].process.kill()
        wait_until(lambda: swarm.status(MIDDLE) is None, "the relay sees that it is gone")
        swarm.mend()
        assert ask("1 2 3") == (first[0], 0)

    def test_with_a_wrong_token_are_refused_with_the_remedy(self, swarm: Garden) -> None:
        wrong = str(new_credential("client", swarm.relay.url))
        with Chat(swarm.relay.url, wrong, QUESTION, 8) as chat:
            chat.wait_for_end()
        assert chat.status == 401
        assert chat.error is not None
        assert "operator" in chat.error["message"]


class TestAVolunteerThatLeaves:
    def test_finishes_the_reply_that_it_writes(self, swarm: Garden) -> None:
        with swarm.chat(QUESTION, max_tokens=150) as chat:
            chat.wait_for_text()
            code = leave(swarm.volunteers[HEAD])
            chat.wait_for_end()
        assert (chat.error, chat.finish_reason, chat.is_done, code) == (None, "length", True, 0)

    def test_finishes_the_sessions_that_others_drive(self, swarm: Garden) -> None:
        with swarm.chat(QUESTION, max_tokens=150) as chat:
            chat.wait_for_text()
            code = leave(swarm.volunteers[LAST])
            chat.wait_for_end()
        assert (chat.error, chat.finish_reason, chat.is_done, code) == (None, "length", True, 0)

    def test_goes_at_once_when_it_is_told_twice(self, swarm: Garden) -> None:
        with swarm.chat(QUESTION) as chat:
            chat.wait_for_text()
            leaving, heard = swarm.volunteers[LAST].process, swarm.log(LAST).count("asked to leave")
            leaving.send_signal(signal.SIGINT)
            wait_until(lambda: swarm.log(LAST).count("asked to leave") > heard, "it has heard")
            leaving.send_signal(signal.SIGINT)
            assert leaving.wait(PATIENCE_SECONDS) == -signal.SIGINT
            assert_broken(chat)
        assert "Traceback" not in swarm.log(LAST)

    def test_gets_no_new_replies(self, swarm: Garden) -> None:
        with swarm.chat(QUESTION, max_tokens=400) as chat:
            chat.wait_for_text()
            leaving = swarm.volunteers[LAST].process
            leaving.terminate()
            wait_until(lambda: not swarm.model().complete, "the leaving one is out of the routes")
            with swarm.chat("1 2 3") as refused:
                refused.wait_for_end()
            assert refused.status == 503
            chat.wait_for_end()
        assert chat.finish_reason == "length"
        assert leaving.wait(PATIENCE_SECONDS) == 0

    def test_with_nothing_to_finish_is_gone_before_its_deadline(self, swarm: Garden) -> None:
        assert leave(swarm.volunteers[LAST]) == 0
        assert swarm.log(LAST).splitlines()[-1].endswith("leaving: 0 replies to finish, 0 sessions to serve")
        assert swarm.status(LAST) is None


class TestAVolunteerThatPauses:
    def test_finishes_its_sessions_takes_no_new_ones_and_goes_on_when_told(self, swarm: Garden) -> None:
        before = swarm.say(QUESTION)
        with swarm.chat(QUESTION, max_tokens=800) as chat:
            chat.wait_for_text()
            swarm.pause(LAST)
            assert chat.finish_reason is None
            reason = swarm.model().reason or ""
            assert reason.startswith("blocks 8\N{EN DASH}11 have no volunteer; they need about ")
            refused = swarm.refusal("1 2 3")
            assert "blocks 8\N{EN DASH}11 have no volunteer" in refused["message"]
            assert refused["code"] == "model_unavailable"
            chat.wait_for_end()
        assert (chat.error, chat.finish_reason, chat.is_done) == (None, "length", True)
        swarm.resume(LAST)
        assert swarm.say(QUESTION) == before

    def test_while_it_writes_a_reply_finishes_it(self, swarm: Garden) -> None:
        """Whoever holds the head: after volunteers have come and gone it need not be the first alone."""
        with swarm.chat(QUESTION, max_tokens=800) as chat:
            chat.wait_for_text()
            for name in SPANS:
                swarm.pause(name)
            assert chat.finish_reason is None
            assert any("1 replies to finish" in swarm.log(name) for name in SPANS)
            chat.wait_for_end()
        assert (chat.error, chat.finish_reason, chat.is_done) == (None, "length", True)
        for name in SPANS:
            swarm.resume(name)

    def test_leaves_new_sessions_to_another_one_with_its_blocks(self, swarm: Garden) -> None:
        before = swarm.say(QUESTION)
        spare = swarm.plant("dahlia", "--blocks", SPANS[MIDDLE])
        swarm.relay.wait_until_serving(["dahlia"], [spare])
        with swarm.chat(QUESTION, max_tokens=800) as chat:
            chat.wait_for_text()
            swarm.pause(MIDDLE)
            assert chat.finish_reason is None
            assert swarm.model().complete
            assert swarm.say(QUESTION) == before
            chat.wait_for_end()
        assert (chat.error, chat.finish_reason, chat.is_done) == (None, "length", True)
        assert leave(swarm.volunteers.pop("dahlia")) == 0
        assert swarm.refusal(QUESTION)["code"] == "model_unavailable"
        swarm.resume(MIDDLE)
        assert swarm.say(QUESTION) == before

    def test_stays_paused_when_the_relay_restarts(self, swarm: Garden) -> None:
        swarm.pause(LAST)
        swarm.replace_relay(subprocess.Popen.terminate)
        wait_until(lambda: swarm.state(LAST) == "paused", "it is there again, and paused")
        swarm.relay.wait_until_serving([HEAD, MIDDLE])
        assert not swarm.model().complete
        swarm.resume(LAST)

    def test_leaves_when_it_is_told_to(self, swarm: Garden) -> None:
        swarm.pause(LAST)
        assert leave(swarm.volunteers[LAST]) == 0

    def test_for_others_who_use_its_machine_says_so(self, swarm: Garden) -> None:
        careful = swarm.plant("careful", "--blocks", "0:1", "--pause-when-busy", "1")
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
            try:
                wait_until(lambda: swarm.state("careful") == "paused", "it pauses for another program")
            finally:
                other.kill()
        assert "paused (other programs use" in swarm.log("careful")
        careful.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: "resumed" in swarm.log("careful"), "its owner has the last word")
        assert leave(swarm.volunteers.pop("careful")) == 0

    def test_while_it_still_starts_does_so_when_it_has_started(
        self, lonely: RelayProcess, model: Path
    ) -> None:
        with volunteer(lonely, "drowsy", "--model", f"{MODEL}={model}", afresh=True) as drowsy:
            maps = Path(f"/proc/{drowsy.process.pid}/maps")
            if not maps.exists():
                pytest.skip("this system does not show what a process has loaded")
            wait_until(lambda: "libtorch" in maps.read_text(), "torch is being loaded")
            drowsy.process.send_signal(signal.SIGUSR1)
            wait_until(lambda: "paused" in [one.state for one in lonely.swarm().volunteers], "it is paused")
            assert leave(drowsy) == 0


class TestHowFastAVolunteerIs:
    def test_is_shown_to_everyone(self, swarm: Garden) -> None:
        wait_until(
            lambda: all(one.blocks_per_second for one in swarm.relay.swarm().volunteers),
            "every volunteer has told its speed",
        )
        assert all(isinstance(one.blocks_per_second, float) for one in swarm.relay.swarm().volunteers)

    def test_is_measured_while_it_has_nothing_to_do_and_known_when_it_comes_back(self, swarm: Garden) -> None:
        span = "0:2"  # the others have four blocks each, and would find each other's table
        swarm.plant("short", "--blocks", span)
        wait_until(lambda: "decode, 2 at once" in swarm.log("short"), "its table is whole")
        assert leave(swarm.volunteers.pop("short")) == 0
        swarm.plant("short", "--blocks", span)
        wait_until(lambda: "as measured earlier" in swarm.log("short"), "it has found its table")
        assert leave(swarm.volunteers.pop("short")) == 0


class TestARelayThatRestarts:
    @pytest.mark.parametrize(
        ("how", "finish_reason"),
        [(subprocess.Popen.terminate, "length"), (subprocess.Popen.kill, None)],
        ids=["is told to stop, and lets a reply end first", "is killed"],
    )
    def test_has_the_same_swarm_again_without_loading(
        self, swarm: Garden, how: object, finish_reason: str | None
    ) -> None:
        before = swarm.say(QUESTION)
        spans = {one.name: (one.id, one.start, one.end) for one in swarm.relay.swarm().volunteers}
        loads = {name: swarm.log(name).count("weights loaded") for name in SPANS}
        with swarm.chat(QUESTION, REPLY_WITHIN_DRAIN) as chat:
            chat.wait_for_text()
            swarm.replace_relay(how)  # type: ignore[arg-type]
            chat.wait_for_end()
        assert chat.finish_reason == finish_reason
        swarm.relay.wait_until_serving(SPANS.keys(), list(swarm.volunteers.values()))
        assert {one.name: (one.id, one.start, one.end) for one in swarm.relay.swarm().volunteers} == spans
        assert {name: swarm.log(name).count("weights loaded") for name in SPANS} == loads
        swarm.wait_for_no_sessions()
        assert swarm.say(QUESTION) == before


class TestLogs:
    def test_tell_the_way_in_step_by_step(self, swarm: Garden) -> None:
        for name, span in SPANS.items():
            told = swarm.log(name)
            places = [told.index(step) for step in STEPS_IN]
            assert places == sorted(places)
            assert f"blocks {span} of {MODEL}" in told
        assert "and the head" in swarm.log(HEAD)

    def test_never_hold_a_token(self, swarm: Garden) -> None:
        talkative = swarm.plant("talkative", "--blocks", "0:1", "--log-level", "DEBUG")
        swarm.relay.wait_until_serving(["talkative"], [talkative])
        assert leave(swarm.volunteers.pop("talkative")) == 0
        for log in swarm.relay.folder.glob("*.log"):
            assert "corolla-volunteer." not in log.read_text()
            assert "corolla-client." not in log.read_text()
            assert parse_credential(swarm.tokens[0]).secret not in log.read_text()


class TestAVolunteerThatIsKilled:
    def test_is_known_for_it_and_the_others_for_their_work(self, swarm: Garden) -> None:
        peers = {name: swarm.status(name) for name in SPANS}
        with swarm.chat(QUESTION, LONG) as chat:
            chat.wait_for_text()
            swarm.volunteers[LAST].process.kill()
            wait_until(lambda: swarm.status(LAST) is None, "the relay has noticed")
        reports = {name: swarm.report(peer.id) for name, peer in peers.items() if peer is not None}
        kinds = {name: {seen.kind for seen in report.kinds} for name, report in reports.items()}
        assert {name for name, seen in kinds.items() if "vanished" in seen} == {LAST}
        assert "answered" in kinds[MIDDLE]
        assert reports[LAST].score < reports[LAST].prior < reports[MIDDLE].score
        swarm.wait_for_no_sessions()
        swarm.mend()


# ---- a volunteer that cannot serve ------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """How a volunteer is started, how it ends, and what it says."""

    arguments: tuple[str, ...]
    code: int
    cause: str
    remedy: str


CASES = {
    "a token that the relay does not know": Case(
        ("--token", "unknown"), 1, "does not know this token", "ask the relay's operator"
    ),
    "a client's token": Case(("--token", "client"), 2, "client's token", "needs a volunteer's token"),
    "no model there": Case(("--model", f"{MODEL}=/no/such/folder"), 1, "/no/such/folder", "local folder"),
    "an unknown family": Case(("--model", f"{MODEL}=strange"), 1, "marsupial", "transformers"),
    "blocks outside the model": Case(("--blocks", "9:15"), 1, "blocks 9:15 are not in 'tiny'", "0:12"),
    "a device that is not there": Case(("--device", "cuda:99"), 1, "no device 'cuda:99'", "there are:"),
}


@dataclass(frozen=True)
class Ended:
    code: int
    said: str


@pytest.fixture(scope="module")
def lonely(model: Path) -> Iterator[RelayProcess]:
    with relay(MODEL, HEARTBEAT_SECONDS=HEARTBEAT_SECONDS) as server:
        yield server


@pytest.fixture(scope="module")
def ended(lonely: RelayProcess, model: Path) -> dict[str, Ended]:
    """What became of a volunteer in each case; they run side by side."""
    strange = model.parent / "strange"
    strange.mkdir()
    (strange / "config.json").write_text('{"model_type": "marsupial"}')
    stand_ins = {
        "unknown": str(new_credential("volunteer", lonely.url)),
        "client": lonely.token("client", "a client"),
        f"{MODEL}=strange": f"{MODEL}={strange}",
    }
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(
                volunteer(
                    lonely,
                    name,
                    *("--model", f"{MODEL}={model}") * ("--model" not in case.arguments),
                    *(stand_ins.get(argument, argument) for argument in case.arguments),
                )
            )
            for name, case in CASES.items()
        }
        return {
            name: Ended(one.process.wait(PATIENCE_SECONDS), one.log.read_text())
            for name, one in running.items()
        }


class TestAVolunteerThatCannotServe:
    @pytest.mark.parametrize("name", CASES)
    def test_says_why_and_what_to_do(self, ended: dict[str, Ended], name: str) -> None:
        case, said = CASES[name], ended[name].said
        assert (ended[name].code, case.cause in said, case.remedy in said) == (case.code, True, True), said
        assert "Traceback" not in said

    def test_for_want_of_a_relay_keeps_trying_and_leaves_at_ctrl_c(
        self, lonely: RelayProcess, model: Path
    ) -> None:
        away = f"http://127.0.0.1:{free_port()}"
        with volunteer(lonely, "patient", "--model", f"{MODEL}={model}", "--relay", away) as patient:
            wait_until(lambda: patient.log.read_text().count("trying again in") > 1, "it tries again")
            assert leave(patient, signal.SIGINT) == 0
        said = patient.log.read_text()
        assert f"no relay answers at {away}" in said
        assert "check the address" in said
        assert "Traceback" not in said

    def test_is_ended_by_ctrl_c_while_it_still_starts(self, lonely: RelayProcess, tmp_path: Path) -> None:
        log = tmp_path / "hasty.log"
        environment = {"COROLLA_TOKEN": lonely.token("volunteer", "hasty")}
        with process(["-m", "volunteer"], environment, log) as child:
            maps = Path(f"/proc/{child.pid}/maps")
            if not maps.exists():
                pytest.skip("this system does not show what a process has loaded")
            wait_until(lambda: "libtorch" in maps.read_text(), "torch is being loaded")
            child.send_signal(signal.SIGINT)
            assert child.wait(PATIENCE_SECONDS) == -signal.SIGINT
        assert "Traceback" not in log.read_text()


def test_a_volunteer_holds_no_more_blocks_than_it_was_told(lonely: RelayProcess, model: Path) -> None:
    with volunteer(lonely, "small", "--model", f"{MODEL}={model}", "--max-blocks", "3") as small:
        lonely.wait_until_serving(["small"], [small])
        (status,) = lonely.swarm().volunteers
        assert status.start is not None
        assert status.end == status.start + 3
        assert leave(small, signal.SIGINT) == 0
        assert "Traceback" not in small.log.read_text()


def test_help_reads_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "volunteer", "--help"],
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Share this machine" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert done.stderr == ""
