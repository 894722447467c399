"""What a volunteer is told on its command line and by its environment: checked once, then frozen.

Does not open models, devices or sockets.
"""

import argparse
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import corolla
from corolla.address import peer_url
from schema.credentials import parse_credential
from schema.errors import InvalidRequest, MalformedMessage, Unauthorized
from schema.ids import Span
from schema.limits import MAX_MODEL_NAME_CHARS, MAX_NAME_CHARS
from volunteer.kvcache import KEPT_SHARE

if TYPE_CHECKING:  # at run time it would load torch: help and mistakes are to be told at once
    from corolla.models.loading import Kernels

BUSY_PERCENT = 30
"""How much of the machine others may use before `--pause-when-busy` pauses, unless told otherwise."""
BUNDLED_MODELS = {"corolla-demo": "demo_model"}
"""Models that come with the project, and their folder in the package `corolla`."""
REPAIR_MEMORY = "256MB"
"""For what was sent on, unless told otherwise: 16,000 tokens of a 70B model (8,192 wide) in 16 bits."""
DTYPES = ("auto", "float32", "bfloat16", "float16")
Weights = Literal["checkpoint", "random"]
QuantizationChoice = Literal["none", "int8", "nf4", "auto"]
KERNELS: tuple["Kernels", ...] = ("fastest", "library")


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model by the name that the swarm knows, and where its files are."""

    name: str
    location: str
    """A local folder, or a Hub id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A volunteer's settings."""

    token: str
    relay_url: str
    name: str
    models: tuple[ModelChoice, ...] = ()
    """Empty: whatever the swarm wants."""
    blocks: Span | None = None
    max_blocks: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantization: QuantizationChoice = "none"
    kernels: "Kernels" = "fastest"
    weights: "Weights" = "checkpoint"
    memory: str | None = None
    threads: int | None = None
    prefix_cache: float = KEPT_SHARE
    """Share of the memory for KV caches that sessions which are over may take; 0 keeps none."""
    repair_memory: str = REPAIR_MEMORY
    """How much memory what was sent on to other hops may take; 0 keeps none."""
    pause_when_busy: int | None = None
    """Percent of the machine that others may use; None: whatever they use."""
    cache: Path | None = None
    """The folder for what was measured; None: nothing is kept."""
    measure: bool = False
    """Measure and end, instead of serving: `token` and `relay_url` are empty then."""
    log_level: str = "INFO"

    def __repr__(self) -> str:
        return f"Config({self.name}, {self.relay_url}, token hidden)"


def locate(name: str) -> str:
    """Where the files of a model are that the swarm asks for by name."""
    bundled = BUNDLED_MODELS.get(name)
    return name if bundled is None else str(Path(corolla.__file__).parent / bundled)


def parse_config(arguments: Sequence[str], environment: Mapping[str, str]) -> Config:
    """The configuration of a command line. Flags go before the environment.

    Exits with status 2 and a usage line when an argument is not understood.
    """
    parser = command_line()
    given = parser.parse_args(arguments)
    token = given.token or environment.get("COROLLA_TOKEN", "")
    if not token and not given.measure:
        parser.error(
            "give --token (or the environment variable COROLLA_TOKEN); the relay's operator makes one with\n"
            "  python -m relay token create --kind volunteer --name NAME"
        )
    try:
        relay_url = "" if given.measure else _relay_url(token, given.relay, environment)
        name = given.name or environment.get("COROLLA_NAME") or platform.node() or "volunteer"
        return Config(
            token=token.strip(),
            relay_url=relay_url,
            name=_public_name(name),
            models=_model_choices(given.model),
            blocks=_span(given.blocks),
            max_blocks=given.max_blocks or _from(environment, "COROLLA_MAX_BLOCKS"),
            device=given.device,
            dtype=given.dtype,
            quantization=given.quantization,
            kernels=given.kernels,
            weights=given.weights,
            memory=given.memory,
            threads=given.threads or _from(environment, "COROLLA_THREADS"),
            prefix_cache=given.prefix_cache,
            repair_memory=given.repair_memory,
            pause_when_busy=given.pause_when_busy,
            cache=_cache_folder(given.cache, environment),
            measure=given.measure,
            log_level=given.log_level,
        )
    except (InvalidRequest, MalformedMessage, Unauthorized) as error:
        parser.error(error.message)


def command_line() -> argparse.ArgumentParser:
    """The parser of `python -m volunteer`."""
    parser = argparse.ArgumentParser(
        prog="python -m volunteer",
        description="Share this machine: serve a span of a model's blocks. Dials out; opens no port.",
    )
    add = parser.add_argument
    add("--token", help="what the relay's operator gave you (or COROLLA_TOKEN)")
    add(
        "--relay",
        metavar="URL",
        help="the relay's address, if the token's is not the right one; of several replicas, all with commas "
        "between them (or COROLLA_RELAY)",
    )
    add("--name", help="the name that everyone sees (or COROLLA_NAME; default: this machine's)")
    add(
        "--model",
        action="append",
        default=[],
        metavar="NAME[=FOLDER]",
        help="serve only this model; its files are in FOLDER, or found by NAME (repeatable)",
    )
    add("--blocks", metavar="START:END", help="insist on this span instead of the relay's choice")
    add("--max-blocks", type=_positive, metavar="N", help="hold at most N blocks (or COROLLA_MAX_BLOCKS)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add(
        "--dtype",
        default="auto",
        choices=DTYPES,
        help="what to compute in (default: auto, by device and model)",
    )
    add(
        "--quantization",
        default="none",
        choices=get_args(QuantizationChoice),
        help="hold the blocks in fewer bits; auto: the first of none, int8 and nf4 in which what is asked "
        "for fits in free memory (default: none)",
    )
    add(
        "--kernels",
        default="fastest",
        choices=KERNELS,
        help="on a CPU: fastest, as measured here, or library, whose bits are those of the whole model",
    )
    add(
        "--weights",
        default="checkpoint",
        choices=get_args(Weights),
        help="random: noise, to measure with; the model's config is enough (default: checkpoint)",
    )
    add("--memory", metavar="SIZE", help="use at most this much memory, such as 8GB")
    add("--threads", type=_positive, metavar="N", help="CPU threads to compute with (or COROLLA_THREADS)")
    add(
        "--prefix-cache",
        type=_share,
        default=KEPT_SHARE,
        metavar="SHARE",
        help="keep what was computed of prompts and replies, so that the next turn of a chat need not "
        "compute it again, in up to this share of the memory for KV caches, from 0 (off) to 1 (default: "
        f"{KEPT_SHARE:g}); replies that are being written go first",
    )
    add(
        "--repair-memory",
        default=REPAIR_MEMORY,
        metavar="SIZE",
        help="keep what was sent on to other volunteers, so that nothing is computed again here when one of "
        "them dies, in up to this much of the host's memory, beside --memory; 0 keeps nothing "
        f"(default: {REPAIR_MEMORY})",
    )
    add(
        "--pause-when-busy",
        nargs="?",
        type=_percent,
        const=BUSY_PERCENT,
        metavar="PERCENT",
        help="take no new sessions while other programs use more of this machine's CPU or GPU than this "
        f"(default: {BUSY_PERCENT}); those that are served are finished",
    )
    add(
        "--measure",
        action="store_true",
        help="load, print how fast this machine computes, and end; needs no token and no relay (default "
        f"model: {next(iter(BUNDLED_MODELS))})",
    )
    add(
        "--cache",
        metavar="FOLDER",
        help="where to keep what was measured (or COROLLA_CACHE; default: corolla in XDG_CACHE_HOME or "
        "~/.cache)",
    )
    add(
        "--log-level",
        default="INFO",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        help="least important level to log (default: INFO)",
    )
    return parser


def _relay_url(token: str, given: str | None, environment: Mapping[str, str]) -> str:
    """Raises Unauthorized, InvalidRequest or MalformedMessage."""
    credential = parse_credential(token)
    if credential.kind != "volunteer":
        raise Unauthorized("this is a client's token; serving blocks needs a volunteer's token")
    relay_url = given or environment.get("COROLLA_RELAY", "") or credential.relay_url
    if not relay_url:
        raise InvalidRequest("the token carries no relay address: give it with --relay https://…")
    addresses = [address.strip() for address in relay_url.split(",")]
    for address in addresses:
        peer_url(address)
    return ",".join(addresses)


def _cache_folder(given: str | None, environment: Mapping[str, str]) -> Path | None:
    """None where nobody says where, and the user has no home."""
    chosen = given or environment.get("COROLLA_CACHE")
    if chosen:
        return Path(chosen)
    base, home = environment.get("XDG_CACHE_HOME", ""), environment.get("HOME", "")
    if base or home:
        return Path(base or Path(home) / ".cache") / "corolla"
    return None


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _percent(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 99")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return share


def _from(environment: Mapping[str, str], variable: str) -> int | None:
    text = environment.get(variable, "")
    try:
        return _positive(text) if text else None
    except argparse.ArgumentTypeError as error:
        raise InvalidRequest(f"{variable}: {error}") from error


def _public_name(text: str) -> str:
    name = text.strip()[:MAX_NAME_CHARS]
    if not name or not name.isprintable():
        raise InvalidRequest(f"{text!r} is no name to show: give letters, digits or signs with --name")
    return name


def _model_choices(texts: Sequence[str]) -> tuple[ModelChoice, ...]:
    choices = tuple(map(_model_choice, texts))
    names = [choice.name for choice in choices]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequest(f"--model names {twice!r} twice: give each model once")
    return choices


def _model_choice(text: str) -> ModelChoice:
    name, given, folder = text.partition("=")
    if not 0 < len(name) <= MAX_MODEL_NAME_CHARS or bool(given) is not bool(folder):
        raise InvalidRequest(
            f"--model is NAME or NAME=FOLDER, the name of {MAX_MODEL_NAME_CHARS} characters at most: {text!r}"
        )
    return ModelChoice(name, folder or locate(name))


def _span(text: str | None) -> Span | None:
    if text is None:
        return None
    start, colon, end = text.partition(":")
    if not colon or not (start + end).isascii() or not start.isdigit() or not end.isdigit():
        raise InvalidRequest(f"--blocks is START:END, such as 0:8, not {text!r}")
    return Span(int(start), int(end))
