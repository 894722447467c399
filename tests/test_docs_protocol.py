"""docs/protocol.md says everything that a peer in another language must know: nothing may be missing."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import schema.credentials
import schema.errors
import schema.limits
import schema.protocol
from schema import browser, messages, swarm
from schema.frames import HEADER_BYTES, MAGIC, PROTOCOL_VERSION, Flags, FrameType
from schema.generation import (
    GenerationRequest,
    HeadTiming,
    HopTiming,
    JsonFormat,
    Message,
    Sampling,
    ScoredToken,
    Stopping,
    Timing,
    Tool,
    ToolCall,
    Tools,
    Usage,
)
from schema.routes import MAC_BYTES, SECRET_BYTES
from schema.tensors import ITEM_BYTES, DType, Role

PAGE = (Path(__file__).parent.parent / "docs/protocol.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|")
]
LIMITS = {
    name: value
    for module in (schema.limits, schema.protocol, schema.credentials)
    for name, value in vars(module).items()
    if name.startswith(("MAX_", "TARGET_"))
}
ERRORS = [
    kind
    for kind in vars(schema.errors).values()
    if isinstance(kind, type) and issubclass(kind, schema.errors.CorollaError)
]


def rows_of(name: str) -> list[list[str]]:
    """The table rows that begin with a name."""
    return [row for row in ROWS if row[0] == f"`{name}`"]


def section(heading: str) -> str:
    """The text below a heading, up to the next one of the same level or a higher one."""
    level = heading.partition(" ")[0]
    start = PAGE.index(f"\n{heading}\n") + len(heading) + 2
    end = re.compile(rf"^#{{1,{len(level)}}} ", re.MULTILINE).search(PAGE, start)
    return PAGE[start : end.start() if end else None]


def names_in(text: str) -> set[str]:
    """Everything in code marks, and each part of a dotted name."""
    return {part for name in re.findall(r"`([^`\n]+)`", text) for part in (name, *name.split("."))}


def field_names(kind: Any) -> set[str]:
    """The field names of a struct on the wire."""
    return {field.encode_name for field in msgspec.structs.fields(kind)}


@pytest.mark.parametrize("kind", FrameType, ids=lambda kind: kind.name)
def test_every_frame_type_has_a_row_with_its_code(kind: FrameType) -> None:
    assert [row[1] for row in rows_of(kind.name)] == [str(int(kind))]


@pytest.mark.parametrize("flag", Flags.__members__.values(), ids=Flags.__members__)
def test_every_flag_has_a_row_with_its_value(flag: Flags) -> None:
    name = next(name for name, member in Flags.__members__.items() if member is flag)
    assert [row[1] for row in rows_of(name)] == [str(int(flag))]


@pytest.mark.parametrize("dtype", DType, ids=lambda dtype: dtype.name)
def test_every_dtype_has_a_row_with_its_code_and_size(dtype: DType) -> None:
    assert [row[1:3] for row in rows_of(dtype.name)] == [[str(int(dtype)), str(ITEM_BYTES[dtype])]]


@pytest.mark.parametrize("role", Role, ids=lambda role: role.name)
def test_every_role_has_a_row_with_its_code(role: Role) -> None:
    assert [row[1] for row in rows_of(role.name)] == [str(int(role))]


@pytest.mark.parametrize(("name", "value"), LIMITS.items(), ids=LIMITS)
def test_every_limit_has_a_row_with_its_value(name: str, value: int) -> None:
    assert [row[1] for row in rows_of(name)] == [str(value)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_every_error_has_a_row_with_its_codes(error: type[schema.errors.CorollaError]) -> None:
    assert [row[1:3] for row in rows_of(error.code)] == [[str(error.close_code), str(error.http_status)]]


def test_every_code_with_a_row_exists() -> None:
    told = [row[0] for row in ROWS if len(row) == 4 and re.fullmatch(r"[14]\d{3}", row[1])]
    assert sorted(told) == sorted(f"`{error.code}`" for error in ERRORS)


PEER_MESSAGES = dict.fromkeys([*messages.FromPeer.__args__, *messages.FromRelay.__args__])


@pytest.mark.parametrize("kind", PEER_MESSAGES, ids=lambda kind: kind.__struct_config__.tag)
def test_every_message_has_a_section_with_each_field(kind: Any) -> None:
    text = section(f"#### `{kind.__struct_config__.tag}`")
    assert field_names(kind) - names_in(text) == set()


def test_every_section_is_of_a_message() -> None:
    told = re.findall(r"^#### `(\w+)`$", PAGE, re.MULTILINE)
    assert sorted(told) == sorted(kind.__struct_config__.tag for kind in PEER_MESSAGES)


@pytest.mark.parametrize(
    ("kind", "heading"),
    [
        (messages.ModelOffer, "#### `offer`"),
        (messages.ModelFacts, "#### `offer`"),
        (messages.GrantedHop, "#### `route`"),
        (messages.ErrorInfo, "#### `failed`"),
        (Usage, "#### `finished`"),
        (Timing, "#### `finished`"),
        (HopTiming, "#### `finished`"),
        (HeadTiming, "#### `finished`"),
        (messages.PromptPart, "#### `delta`"),
        (messages.CallMade, "#### `delta`"),
        (ScoredToken, "#### `delta`"),
        (GenerationRequest, "#### `generate`"),
        (Message, "#### `generate`"),
        (ToolCall, "#### `generate`"),
        (Tools, "#### `generate`"),
        (Tool, "#### `generate`"),
        (JsonFormat, "#### `generate`"),
        (Sampling, "#### `generate`"),
        (Stopping, "#### `generate`"),
        (messages.Failure, "## 9. Failures, and closing a session"),
        (swarm.SwarmStatus, "## 12. Pages"),
        (swarm.ModelStatus, "## 12. Pages"),
        (swarm.VolunteerStatus, "## 12. Pages"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_field_of_what_a_message_holds_is_told(kind: Any, heading: str) -> None:
    assert field_names(kind) - names_in(section(heading)) == set()


PAGE_MESSAGES = [*browser.FromPage.__args__, *browser.ToPage.__args__]


@pytest.mark.parametrize("kind", PAGE_MESSAGES, ids=lambda kind: kind.__struct_config__.tag)
def test_every_message_of_a_page_has_a_row_with_each_field(kind: Any) -> None:
    side = "page" if kind in browser.FromPage.__args__ else "relay"
    rows = [row for row in rows_of(kind.__struct_config__.tag) if len(row) == 3 and row[1] == side]
    assert [field_names(kind) - names_in(row[2]) for row in rows] == [set()]


def test_layout_of_the_header() -> None:
    layout = [row for row in ROWS if len(row) == 4 and row[2] in {"magic", "payload_bytes"}]
    assert (layout[0][0], layout[0][1], int(layout[1][0]) + int(layout[1][1])) == ("0", "2", HEADER_BYTES)


def test_numbers_that_are_in_the_text() -> None:
    numbers = (f"version {PROTOCOL_VERSION}", f"{MAGIC:#06X}".replace("X", "x"), f"= {SECRET_BYTES} bytes")
    assert [number for number in (*numbers, f"digest of {MAC_BYTES} bytes") if number not in PAGE] == []


def test_every_section_that_is_named_exists() -> None:
    named = set(re.findall(r"(?<!RFC \d{4} )section (\d+)(?!\.)", PAGE))
    assert named <= set(re.findall(r"^## (\d+)\.", PAGE, re.MULTILINE))
