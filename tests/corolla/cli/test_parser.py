"""The commands as people meet them: help, documentation, completion, and a quick start."""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from corolla.cli.commands import COMMANDS
from corolla.cli.exits import ExitCode
from corolla.cli.interactive import HELP
from corolla.cli.parser import SHELLS, command_line
from tests.corolla.cli.running import CommandLine

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
WIDTH = 100
SHARED = "## What every command has"
ACCESS = "## Which relay, and as whom"
HEAVY = {
    "torch",
    "transformers",
    "numpy",
    "tokenizers",
    "relay",
    "volunteer",
    "starlette",
    "sqlalchemy",
    "websockets",
}


def leaves(
    parser: argparse.ArgumentParser, path: str = "corolla"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that does something, by its full name."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield path, parser
    for group in groups:
        for name, below in group.choices.items():
            yield from leaves(below, f"{path} {name}")


LEAVES = dict(leaves(command_line()))


def section(heading: str) -> str:
    """The text below a heading of the page."""
    _, _, below = PAGE.partition(f"\n{heading}\n")
    assert below, f"docs/cli.md has no {heading!r}"
    return below.partition("\n## ")[0]


# ---- documentation ----


@pytest.mark.parametrize("name", LEAVES)
def test_each_option_is_in_the_docs(name: str) -> None:
    own = section(f"## {name}") + section(SHARED) + section(ACCESS)
    options = [option for action in LEAVES[name]._actions for option in action.option_strings]
    assert [option for option in options if not re.search(rf"`{option}[` ]", own)] == []


def test_the_docs_name_no_option_that_is_not_there() -> None:
    known = {
        option for leaf in LEAVES.values() for action in leaf._actions for option in action.option_strings
    }
    assert set(re.findall(r"`(--?[a-z][a-z-]*)", PAGE)) <= known


def test_each_command_is_in_the_table() -> None:
    listed = re.findall(r"^\| \[`(corolla [a-z ]+)`\]\(#([a-z-]+)\)", PAGE, re.MULTILINE)
    assert {name for name, _ in listed} == set(LEAVES)
    assert all(anchor == name.replace(" ", "-") for name, anchor in listed)


def test_each_exit_code_is_in_the_docs() -> None:
    rows = re.findall(r"^\| (\d+) \|", section("## Exit codes"), re.MULTILINE)
    assert [int(row) for row in rows] == sorted(ExitCode)


def test_each_line_command_is_in_the_docs() -> None:
    for name in re.findall(r"^/[a-z]+", HELP, re.MULTILINE):
        assert re.search(rf"^\| `{name}[` ]", section("## corolla chat"), re.MULTILINE)


def test_every_command_does_something() -> None:
    assert {name.removeprefix("corolla ") for name in LEAVES} == {*COMMANDS, "completion"}


# ---- help ----


@pytest.mark.parametrize("arguments", [[], ["batch"], *(name.split()[1:] for name in LEAVES)], ids=" ".join)
def test_help_reads_well(arguments: list[str], command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    outcome = command(*arguments, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert max(map(len, outcome.out.splitlines())) <= WIDTH
    assert outcome.out.startswith(f"usage: {' '.join(['corolla', *arguments])} ")


def test_the_version_is_told(command: CommandLine) -> None:
    outcome = command("--version")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"corolla {version('corolla')}\n"


def test_help_says_when_it_is_asked_again(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    told = command("models", "--help").out
    assert "no room or is away (429, 502, 503, 504), or when nobody answers (default: 0)" in told


@pytest.mark.parametrize("name", LEAVES)
def test_every_argument_is_explained(name: str) -> None:
    assert [action.dest for action in LEAVES[name]._actions if not action.help] == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["sing"], ["batch"], ["chat", "--temperature", "nan"], ["chat", "--retry", "-1"], ["models", "x"]],
)
def test_wrong_usage_is_told_with_the_usage(arguments: list[str], command: CommandLine) -> None:
    outcome = command(*arguments)
    assert (outcome.code, outcome.out) == (ExitCode.USAGE, "")
    assert outcome.err.startswith("usage: corolla")


# ---- completion ----


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_understands_its_completion(shell: str, command: CommandLine, tmp_path: Path) -> None:
    outcome = command("completion", shell)
    script = tmp_path / "completion"
    script.write_text(outcome.out)
    assert all(option in outcome.out for option in ("submit", "max-tokens", "completion"))
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [("b", {"batch"}), ("batch s", {"submit", "status"}), ("chat --m", {"--model", "--max-tokens"})],
)
def test_bash_completes(typed: str, completed: set[str], command: CommandLine, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(command("completion", "bash").out)
    ask = (
        f"source {script}; COMP_WORDS=(corolla {typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        "_shtab_corolla corolla; echo ${COMPREPLY[*]}"
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60, check=True)
    assert set(done.stdout.split()) == completed


# ---- starting ----


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules), file=sys.stderr)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return {module.partition(".")[0] for module in done.stderr.split()}


def test_the_commands_load_nothing_heavy() -> None:
    assert loaded_by("import corolla.__main__, corolla.cli.commands") & HEAVY == set()


def test_help_does_not_even_load_httpx() -> None:
    code = (
        "import corolla.cli.entry\ntry: corolla.cli.entry.main(['chat', '--help'])\nexcept SystemExit: pass"
    )
    assert loaded_by(code) & {*HEAVY, "httpx"} == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_output_that_cannot_be_written_is_told() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "corolla", "completion", "bash"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == ExitCode.FAILED
    assert done.stderr == "corolla: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("missing", ["httpx", "shtab"])
def test_without_its_extra_a_command_says_which(missing: str) -> None:
    words = ["models", "--url", "http://127.0.0.1:1"] if missing == "httpx" else ["completion", "bash"]
    hide = f"import sys; sys.modules[{missing!r}] = None"
    code = f"{hide}; from corolla.cli.entry import main; sys.exit(main({words}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (ExitCode.FAILED, "")
    assert f"{missing} is not installed" in done.stderr
    assert "corolla[cli]" in done.stderr
