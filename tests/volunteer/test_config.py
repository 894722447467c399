"""Every flag and variable of a volunteer, and what each says when it is wrong."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import corolla
from corolla.models.loading import Kernels
from corolla.models.quantization import Quantization
from schema.credentials import Credential, new_credential
from schema.ids import Span
from schema.limits import MAX_MODEL_NAME_CHARS, MAX_NAME_CHARS
from volunteer.config import (
    BUSY_PERCENT,
    DTYPES,
    KERNELS,
    REPAIR_MEMORY,
    Config,
    ModelChoice,
    QuantizationChoice,
    command_line,
    locate,
    parse_config,
)
from volunteer.kvcache import KEPT_SHARE

RELAY = "https://relay.example"
TOKEN = Credential("volunteer", "abc", "very-secret", RELAY)


def parse(*arguments: str, **environment: str) -> Config:
    return parse_config(arguments, {"COROLLA_TOKEN": str(TOKEN), **environment})


class TestDefaults:
    def test_need_a_token_alone(self) -> None:
        config = parse_config(["--token", str(TOKEN)], {})
        assert (config.token, config.relay_url) == (str(TOKEN), RELAY)
        assert config.name
        assert config.models == ()

    def test_leave_the_choice_to_relay_and_machine(self) -> None:
        config = parse()
        assert (config.blocks, config.max_blocks, config.memory, config.threads) == (None,) * 4
        assert (config.device, config.dtype, config.quantization) == ("auto", "auto", "none")


class TestFlags:
    def test_reach_the_configuration(self) -> None:
        config = parse(
            *("--relay", "http://127.0.0.1:8000", "--name", "Anemone", "--model", "tiny=/models/tiny"),
            *("--blocks", "4:8", "--max-blocks", "6", "--device", "cuda:1", "--dtype", "bfloat16"),
            *("--quantization", "nf4", "--kernels", "library", "--weights", "random"),
            *("--memory", "8GB", "--threads", "3", "--pause-when-busy", "50", "--log-level", "DEBUG"),
        )
        assert config == Config(
            token=str(TOKEN),
            relay_url="http://127.0.0.1:8000",
            name="Anemone",
            models=(ModelChoice("tiny", "/models/tiny"),),
            blocks=Span(4, 8),
            max_blocks=6,
            device="cuda:1",
            dtype="bfloat16",
            quantization="nf4",
            kernels="library",
            weights="random",
            memory="8GB",
            threads=3,
            pause_when_busy=50,
            log_level="DEBUG",
        )

    @pytest.mark.parametrize(
        ("flag", "value", "variable", "other", "field", "expected"),
        [
            ("--relay", "http://a:1", "COROLLA_RELAY", "http://b:2", "relay_url", "http://a:1"),
            ("--name", "Anemone", "COROLLA_NAME", "Bellis", "name", "Anemone"),
            ("--max-blocks", "2", "COROLLA_MAX_BLOCKS", "3", "max_blocks", 2),
            ("--threads", "2", "COROLLA_THREADS", "3", "threads", 2),
            ("--cache", "a", "COROLLA_CACHE", "b", "cache", Path("a")),
        ],
    )
    def test_go_before_the_environment(
        self, flag: str, value: str, variable: str, other: str, field: str, expected: object
    ) -> None:
        assert getattr(parse(flag, value, **{variable: other}), field) == expected
        assert str(getattr(parse(**{variable: other}), field)) == other

    def test_of_the_token_go_before_the_environment(self) -> None:
        other = new_credential("volunteer", "https://other.example")
        assert parse("--token", str(other)).relay_url == "https://other.example"

    @pytest.mark.parametrize(("text", "share"), [("0", 0.0), ("0.25", 0.25), ("1", 1.0)])
    def test_give_a_share_of_the_memory_to_what_is_kept(self, text: str, share: float) -> None:
        assert parse().prefix_cache == KEPT_SHARE
        assert parse("--prefix-cache", text).prefix_cache == share

    @pytest.mark.parametrize("size", ["0", "1GB"])
    def test_give_memory_to_what_was_sent_on(self, size: str) -> None:
        assert parse().repair_memory == REPAIR_MEMORY
        assert parse("--repair-memory", size).repair_memory == size

    def test_pause_for_others_only_when_asked_to(self) -> None:
        assert parse().pause_when_busy is None
        assert parse("--pause-when-busy").pause_when_busy == BUSY_PERCENT
        assert parse("--pause-when-busy", "--name", "Anemone").pause_when_busy == BUSY_PERCENT

    def test_name_as_many_models_as_one_likes(self) -> None:
        config = parse("--model", "owner/name", "--model", "tiny=./tiny=1")
        assert config.models == (ModelChoice("owner/name", "owner/name"), ModelChoice("tiny", "./tiny=1"))

    def test_cut_a_name_that_is_too_long(self) -> None:
        assert parse("--name", "x" * 200).name == "x" * MAX_NAME_CHARS

    def test_offer_what_the_loader_can_do(self) -> None:
        assert {*get_args(Quantization), "auto"} == {*get_args(QuantizationChoice)}
        assert set(get_args(Kernels)) == set(KERNELS)
        assert DTYPES[0] == "auto"


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"XDG_CACHE_HOME": "/var/cache", "HOME": "/home/ada"}, Path("/var/cache/corolla")),
        ({"HOME": "/home/ada"}, Path("/home/ada/.cache/corolla")),
        ({}, None),
    ],
)
def test_what_was_measured_is_kept_where_caches_are(environment: dict[str, str], folder: Path | None) -> None:
    assert parse(**environment).cache == folder


def test_measuring_needs_no_token_and_no_relay() -> None:
    config = parse_config(["--measure", "--blocks", "0:4"], {})
    assert (config.measure, config.blocks) == (True, Span(0, 4))
    assert (config.token, config.relay_url) == ("", "")
    assert not parse().measure


def test_a_token_is_taken_without_the_spaces_around_it() -> None:
    assert parse_config(["--token", f"  {TOKEN}\n"], {}).token == str(TOKEN)


def test_the_model_that_comes_with_the_project_is_found_by_its_name() -> None:
    assert locate("corolla-demo") == str(Path(corolla.__file__).parent / "demo_model")
    assert locate("owner/name") == "owner/name"


WRONG = [
    pytest.param(["--token", "hello"], "should begin with 'corolla-volunteer.'", id="no token at all"),
    pytest.param(["--token", str(TOKEN)[:-3] + "%%%"], "paste it whole", id="a damaged token"),
    pytest.param(
        ["--token", str(new_credential("client", RELAY))], "needs a volunteer's token", id="a client's token"
    ),
    pytest.param(
        ["--token", str(new_credential("volunteer", ""))], "give it with --relay", id="no relay's address"
    ),
    pytest.param(["--relay", "relay.example"], "https://relay.example", id="a relay without a scheme"),
    pytest.param(["--name", "a\nb"], "--name", id="a name of two lines"),
    pytest.param(["--name", "   "], "--name", id="a name of spaces"),
    pytest.param(["--model", ""], "NAME=FOLDER", id="no model"),
    pytest.param(["--model", "tiny="], "NAME=FOLDER", id="a model without a folder"),
    pytest.param(["--model", "=/models"], "NAME=FOLDER", id="a model without a name"),
    pytest.param(
        ["--model", "x" * (MAX_MODEL_NAME_CHARS + 1)], str(MAX_MODEL_NAME_CHARS), id="a model's long name"
    ),
    pytest.param(["--model", "a", "--model", "a=b"], "each model once", id="a model twice"),
    pytest.param(["--blocks", "4"], "START:END", id="blocks without an end"),
    pytest.param(["--blocks", "a:b"], "START:END", id="blocks in words"),
    pytest.param(["--blocks", "8:4"], "start < end", id="blocks backwards"),
    pytest.param(["--blocks", "0:99999"], "end <=", id="too many blocks"),
    pytest.param(["--pause-when-busy", "0"], "from 1 to 99", id="a machine that is always busy"),
    pytest.param(["--pause-when-busy", "100"], "from 1 to 99", id="a machine that is never busy"),
    pytest.param(["--prefix-cache", "-0.1"], "from 0 to 1", id="less memory than none"),
    pytest.param(["--prefix-cache", "1.1"], "from 0 to 1", id="more memory than there is"),
    pytest.param(["--prefix-cache", "nan"], "from 0 to 1", id="memory that is no number"),
    pytest.param(["--prefix-cache", "half"], "from 0 to 1", id="memory as a word"),
    pytest.param(["--max-blocks", "0"], "above 0", id="no blocks"),
    pytest.param(["--max-blocks", "-3"], "above 0", id="fewer than no blocks"),
    pytest.param(["--max-blocks", "many"], "above 0", id="blocks as a word"),
    pytest.param(["--threads", "1.5"], "above 0", id="half a thread"),
    pytest.param(["--dtype", "float8"], "bfloat16", id="another dtype"),
    pytest.param(["--quantization", "int3"], "nf4", id="another quantization"),
    pytest.param(["--log-level", "LOUD"], "WARNING", id="another level"),
    pytest.param(["--colour", "red"], "--colour", id="another flag"),
]


class TestMistakes:
    @pytest.mark.parametrize(("arguments", "remedy"), WRONG)
    def test_are_explained_with_their_remedy(
        self, arguments: list[str], remedy: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            parse(*arguments)
        assert caught.value.code == 2
        assert remedy in capsys.readouterr().err

    @pytest.mark.parametrize("variable", ["COROLLA_MAX_BLOCKS", "COROLLA_THREADS"])
    def test_in_the_environment_name_their_variable(
        self, variable: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            parse(**{variable: "many"})
        told = capsys.readouterr().err
        assert variable in told
        assert "above 0" in told

    def test_of_leaving_out_the_token_say_who_makes_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            parse_config([], {})
        told = capsys.readouterr().err
        assert caught.value.code == 2
        assert "python -m relay token create" in told
        assert "COROLLA_TOKEN" in told

    @pytest.mark.parametrize("arguments", [["--threads", "x"], ["--relay", "x"], ["--model", "tiny="]])
    def test_never_repeat_the_token(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            parse(*arguments)
        assert TOKEN.secret not in capsys.readouterr().err


def test_the_token_is_in_no_representation() -> None:
    config = parse()
    assert TOKEN.secret not in repr(config)
    assert TOKEN.secret not in f"{config}"


def test_every_flag_is_explained() -> None:
    # argparse has no public list of a parser's actions.
    for action in command_line()._actions:
        assert action.help, action.option_strings
        assert action.help is not argparse.SUPPRESS


def test_help_and_mistakes_need_no_torch() -> None:
    code = "import sys, volunteer.__main__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_its_libraries_it_says_which_and_what_to_do() -> None:
    """As after an installation of the relay alone."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from volunteer.__main__ import main\n"
        "sys.argv = ['volunteer', '--token', sys.argv[1]]\n"
        "sys.exit(main())"
    )
    token = str(new_credential("volunteer", "http://127.0.0.1:9"))
    done = subprocess.run([sys.executable, "-c", code, token], capture_output=True, text=True)
    assert done.returncode == 1
    assert "torch is not installed" in done.stderr
    assert "'volunteer' extra" in done.stderr
    assert "Traceback" not in done.stderr
