"""The golden vectors: what the contract's bytes mean, and which bytes it refuses, for ever."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schema import browser, messages
from schema.errors import CorollaError
from schema.frames import Frame, decode_frame, encode_frame
from schema.ids import PeerId, SessionId, Span
from schema.routes import Hop, Route, sign_route, verify_route
from schema.tensors import DType, Role, WireTensor, decode_tensors, encode_tensors

FOLDER = Path(__file__).parent
Vector = dict[str, Any]


def load(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def cases(vectors: list[Vector]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=[vector.get("name", "") for vector in vectors])


FRAMES, ROUTES, TENSORS, MESSAGES = load("frames"), load("routes"), load("tensors"), load("messages")
SESSION = SessionId(bytes.fromhex(ROUTES["session"]))
SECRET = bytes.fromhex(ROUTES["secret"])


def frame_of(meaning: dict[str, Any]) -> Frame:
    raw: dict[str, Any] = {name: bytes.fromhex(meaning[name]) for name in ("session", "route", "payload")}
    return Frame(**(meaning | raw))


def route_of(meaning: dict[str, Any]) -> Route:
    hops = tuple(Hop(PeerId(hop["peer"]), Span(hop["start"], hop["end"])) for hop in meaning["hops"])
    return Route(PeerId(meaning["origin"]), hops, bytes.fromhex(meaning["model_key"]), meaning["expires"])


def tensor_of(meaning: dict[str, Any]) -> WireTensor:
    data = bytes.fromhex(meaning["data"])
    return WireTensor(DType[meaning["dtype"]], tuple(meaning["shape"]), data, Role[meaning["role"]])


@cases(FRAMES["valid"])
def test_frame_is_encoded_to_its_bytes(vector: Vector) -> None:
    assert encode_frame(frame_of(vector["meaning"])).hex() == vector["bytes"]


@cases(FRAMES["valid"])
def test_frame_bytes_have_their_meaning(vector: Vector) -> None:
    assert decode_frame(bytes.fromhex(vector["bytes"])) == frame_of(vector["meaning"])


@cases(ROUTES["valid"])
def test_route_is_signed_to_its_bytes(vector: Vector) -> None:
    assert sign_route(route_of(vector["meaning"]), SESSION, SECRET).hex() == vector["bytes"]


@cases(ROUTES["valid"])
def test_route_bytes_have_their_meaning(vector: Vector) -> None:
    assert verify_route(bytes.fromhex(vector["bytes"]), SESSION, SECRET) == route_of(vector["meaning"])


@cases(ROUTES["valid"])
def test_route_ends_with_its_mac(vector: Vector) -> None:
    assert vector["bytes"].endswith(vector["meaning"]["mac"])


@cases(TENSORS["valid"])
def test_tensors_are_encoded_to_their_bytes(vector: Vector) -> None:
    assert encode_tensors([tensor_of(meaning) for meaning in vector["meaning"]]).hex() == vector["bytes"]


@cases(TENSORS["valid"])
def test_tensor_bytes_have_their_meaning(vector: Vector) -> None:
    expected = [tensor_of(meaning) for meaning in vector["meaning"]]
    assert decode_tensors(bytes.fromhex(vector["bytes"])) == expected


@pytest.mark.parametrize(
    ("vectors", "decode"),
    [
        pytest.param(FRAMES, decode_frame, id="frames"),
        pytest.param(ROUTES, lambda raw: verify_route(raw, SESSION, SECRET), id="routes"),
        pytest.param(TENSORS, decode_tensors, id="tensors"),
    ],
)
def test_bad_bytes_are_refused_by_their_names(
    vectors: dict[str, Any], decode: Callable[[bytes], object]
) -> None:
    found: dict[str, str] = {}
    for vector in vectors["refused"]:
        with pytest.raises(CorollaError) as caught:
            decode(bytes.fromhex(vector["bytes"]))
        found[vector["name"]] = caught.value.code
    assert found == {vector["name"]: vector["error"] for vector in vectors["refused"]}


DECODERS: dict[str, Callable[[str], Any]] = {
    "peer": messages.decode_from_peer,
    "relay": messages.decode_from_relay,
    "page": browser.decode_from_page,
    "to page": lambda text: msgspec.json.decode(text, type=browser.ToPage),
    "failure": lambda text: messages.decode_failure(text.encode()),
}
KINDS: dict[str, Any] = {
    "peer": messages.FromPeer,
    "relay": messages.FromRelay,
    "page": browser.FromPage,
    "to page": browser.ToPage,
    "failure": messages.Failure,
}


@cases(MESSAGES["valid"])
def test_message_is_encoded_to_its_text(vector: Vector) -> None:
    message = msgspec.convert(vector["meaning"], KINDS[vector["from"]], str_keys=True)
    encoders: dict[str, Callable[[Any], str]] = {
        "to page": browser.encode_to_page,
        "failure": lambda failure: messages.encode_failure(failure).decode(),
    }
    assert encoders.get(vector["from"], messages.encode_message)(message) == vector["text"]


@cases(MESSAGES["valid"] + MESSAGES["short"])
def test_message_text_has_its_meaning(vector: Vector) -> None:
    message = DECODERS[vector["from"]](vector["text"])
    assert msgspec.to_builtins(message, str_keys=True) == vector["meaning"]


@cases(MESSAGES["refused"])
def test_bad_message_is_refused_by_its_name(vector: Vector) -> None:
    with pytest.raises(CorollaError) as caught:
        DECODERS[vector["from"]](vector["text"])
    assert caught.value.code == vector["error"]


def tags(union: Any) -> set[Any]:
    return {kind.__struct_config__.tag for kind in union.__args__}


@pytest.mark.parametrize(
    ("side", "union"),
    [
        ("peer", messages.FromPeer),
        ("relay", messages.FromRelay),
        ("page", browser.FromPage),
        ("to page", browser.ToPage),
    ],
)
def test_every_message_has_a_vector(side: str, union: Any) -> None:
    assert {v["meaning"]["type"] for v in MESSAGES["valid"] if v["from"] == side} == tags(union)


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_a_decoder_written_from_the_documentation_agrees() -> None:
    test = FOLDER / "vectors.test.js"
    done = subprocess.run(
        ["node", "--test", str(test)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout
