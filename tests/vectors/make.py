"""Writes the golden vectors. Run by hand when one is added: `python -m tests.vectors.make`.

Bytes of a published protocol version never change, so this refuses to change a vector that is there
already. The tests do not import this: they read the JSON files only.
"""

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schema import messages
from schema.errors import CorollaError
from schema.frames import MAGIC, Flags, Frame, FrameType, decode_frame, encode_frame
from schema.ids import PeerId, SessionId, Span, model_key
from schema.limits import MAX_HOPS, MAX_PAYLOAD_BYTES
from schema.resuming import Replay, Resume, encode_replay, encode_resume
from schema.routes import Hop, Route, sign_route, verify_route
from schema.tensors import DType, Role, WireTensor, decode_tensors, encode_tensors
from schema.trace import HopTrace, encode_trace
from tests.vectors.make_messages import FAILURE, control

FOLDER = Path(__file__).parent
ABOUT = (
    "Golden vectors of Corolla's protocol, version 1 (docs/protocol.md). Bytes are hex. Written by "
    "tests/vectors/make.py, read by tests/vectors/test_vectors.py and tests/vectors/vectors.test.js. "
    "Add to them; never change one."
)
Vectors = dict[str, Any]

SECRET = bytes(range(32))
SESSION = SessionId(bytes.fromhex("00112233445566778899aabbccddeeff"))
DRIVER = PeerId("d0d1d2d3d4d5d6d7")
FIRST = PeerId("0a0a0a0a0a0a0a0a")
SECOND = PeerId("ffffffffffffffff")


def refused(name: str, raw: bytes, decode: Callable[[bytes], object]) -> Vectors:
    try:
        decode(raw)
    except CorollaError as error:
        return {"name": name, "bytes": raw.hex(), "error": error.code}
    raise SystemExit(f"{name} is not refused")


# ---- routes -----------------------------------------------------------------------------------

ROUTES = {
    "one hop, the driver itself": Route(DRIVER, (Hop(DRIVER, Span(0, 1)),), model_key("demo"), 1_900_000_000),
    "two hops": Route(
        DRIVER, (Hop(FIRST, Span(0, 16)), Hop(SECOND, Span(16, 32))), model_key("a/b-é"), 2**32 - 1
    ),
    "as many hops as there may be": Route(
        SECOND,
        tuple(Hop(PeerId(f"{index:016x}"), Span(index, index + 1)) for index in range(MAX_HOPS)),
        bytes(8),
        0,
    ),
    "the last block there may be": Route(PeerId("0" * 16), (Hop(FIRST, Span(1023, 1024)),), b"\xff" * 8, 1),
}


def route_meaning(route: Route, raw: bytes) -> Vectors:
    return {
        "expires": route.expires,
        "model_key": route.model_key.hex(),
        "origin": route.origin,
        "hops": [{"peer": hop.peer, "start": hop.span.start, "end": hop.span.end} for hop in route.hops],
        "mac": raw[-16:].hex(),
    }


def routes() -> Vectors:
    valid: list[Vectors] = []
    for name, route in ROUTES.items():
        raw = sign_route(route, SESSION, SECRET)
        valid.append({"name": name, "bytes": raw.hex(), "meaning": route_meaning(route, raw)})
    good = sign_route(ROUTES["two hops"], SESSION, SECRET)

    def verify(raw: bytes) -> Route:
        return verify_route(raw, SESSION, SECRET)

    def changed(offset: int, value: int) -> bytes:
        return good[:offset] + bytes([value]) + good[offset + 1 :]

    bad = [
        ("nothing", b""),
        ("one byte short", good[:-1]),
        ("one byte long", good + b"\0"),
        ("another version", changed(0, 2)),
        ("no hop", changed(1, 0)),
        ("one hop more than there are bytes for", changed(1, 3)),
        ("more hops than the limit", changed(1, 65)),
        ("an empty span", changed(32, 16)),
        ("blocks beyond the limit", changed(47, 5)),
        ("a later expiry", changed(4, 0xFE)),
        ("another driver", changed(16, 0)),
        ("another MAC", changed(len(good) - 1, good[-1] ^ 1)),
        ("the MAC of another session", sign_route(ROUTES["two hops"], SessionId(bytes(16)), SECRET)),
        ("the MAC of another secret", sign_route(ROUTES["two hops"], SESSION, bytes(32))),
    ]
    return {
        "secret": SECRET.hex(),
        "session": SESSION.hex(),
        "valid": valid,
        "refused": [refused(name, raw, verify) for name, raw in bad],
    }


# ---- tensors ----------------------------------------------------------------------------------

FLOATS = [0.0, -0.0, 1.0, -1.5, 0.1, 65504.0, float("inf"), float("-inf")]
TENSORS: dict[str, list[WireTensor]] = {
    "none": [],
    "bfloat16 hidden states": [
        WireTensor(
            DType.BFLOAT16,
            (1, 2, 4),
            bytes.fromhex("0000008080 3f c0bf cd3d 803f 807f 80ff".replace(" ", "")),
        )
    ],
    "float16 with padding": [WireTensor(DType.FLOAT16, (1, 1, 3), struct.pack("<3e", 0.1, -2.0, 65504.0))],
    "float32": [WireTensor(DType.FLOAT32, (2, 2, 2), struct.pack("<8f", *FLOATS))],
    "float32, not a number": [WireTensor(DType.FLOAT32, (1,), bytes.fromhex("0000c07f"))],
    "int64 at its ends": [WireTensor(DType.INT64, (3,), struct.pack("<3q", -(2**63), 0, 2**63 - 1))],
    "hidden states and a mask": [
        WireTensor(DType.FLOAT16, (2, 1, 2), struct.pack("<4e", 1, 2, 3, 4)),
        WireTensor(DType.INT8, (2, 3), bytes([0, 1, 1, 1, 1, 1]), Role.ATTENTION_MASK),
    ],
    "int8 at its ends": [WireTensor(DType.INT8, (2,), b"\x80\x7f")],
    "an acknowledgement: zero tokens": [WireTensor(DType.BFLOAT16, (1, 0, 4096), b"")],
    "rank 0": [WireTensor(DType.INT8, (), b"\x05")],
    "as many tensors and dimensions as there may be": [WireTensor(DType.INT8, (1, 1, 1, 1), b"\1")] * 4,
}


def values(tensor: WireTensor) -> list[Any]:
    """Elements as JSON: integers of 64 bits and what JSON has no number for as strings."""
    data = bytes(tensor.data)
    if tensor.dtype is DType.BFLOAT16:
        data = b"".join(b"\0\0" + data[index : index + 2] for index in range(0, len(data), 2))
    letter = {DType.FLOAT32: "f", DType.FLOAT16: "e", DType.BFLOAT16: "f", DType.INT8: "b", DType.INT64: "q"}
    numbers = [number for (number,) in struct.iter_unpack("<" + letter[tensor.dtype], data)]
    if tensor.dtype is DType.INT64:
        return [str(number) for number in numbers]
    words = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN", "-0.0": "-0"}
    return [words.get(repr(number), number) for number in numbers]


def tensor_meaning(tensor: WireTensor) -> Vectors:
    return {
        "dtype": tensor.dtype.name,
        "role": tensor.role.name,
        "shape": list(tensor.shape),
        "data": bytes(tensor.data).hex(),
        "values": values(tensor),
    }


def tensors() -> Vectors:
    valid = [
        {"name": name, "bytes": encode_tensors(list_).hex(), "meaning": [tensor_meaning(t) for t in list_]}
        for name, list_ in TENSORS.items()
    ]
    huge = struct.pack("<BBBx4I", 1, 4, 0, *[2**32 - 1] * 4)
    bad = [
        ("nothing", b""),
        ("three bytes", bytes(3)),
        ("five tensors", b"\5\0\0\0" + bytes.fromhex("0400000001000000") * 5),
        ("dtype 0", bytes.fromhex("01000000 00000000 00000000")),
        ("dtype 6", bytes.fromhex("01000000 06000000 00000000")),
        ("role 2", bytes.fromhex("01000000 04000200 00000000")),
        ("rank 5", bytes.fromhex("01000000 04050000") + b"\1\0\0\0" * 5 + bytes(4)),
        ("no padding", bytes.fromhex("01000000 04000000 01")),
        ("data cut off", bytes.fromhex("01000000 01010000 02000000 00000000")),
        ("shape cut off", bytes.fromhex("01000000 01020000 02000000")),
        ("a byte after the last tensor", b"\0\0\0\0\0"),
        ("2^128 elements", b"\1\0\0\0" + huge),
        (
            "nothing in huge dimensions",
            b"\1\0\0\0" + struct.pack("<BBBx3I", 1, 3, 0, 0, 2**32 - 1, 2**32 - 1),
        ),
    ]
    return {"valid": valid, "refused": [refused(name, raw, decode_tensors) for name, raw in bad]}


# ---- frames -----------------------------------------------------------------------------------

ROUTE = sign_route(ROUTES["two hops"], SESSION, SECRET)
HIDDEN = encode_tensors(TENSORS["bfloat16 hidden states"])
BROKEN = SessionId(bytes(range(16)))
ACKNOWLEDGED = encode_tensors(TENSORS["an acknowledgement: zero tokens"])
FRAMES = {
    "a decode step to hop 0": Frame(FrameType.STEP, 0, SESSION, 7, 130, ROUTE, HIDDEN, Flags.LAST_ONLY, 2),
    "its answer to the driver": Frame(FrameType.STEP, 2, SESSION, 7, 130, ROUTE, HIDDEN, Flags.LAST_ONLY, 2),
    "a prefill chunk": Frame(FrameType.PREFILL, 1, SESSION, 0, 0, ROUTE, HIDDEN, Flags.NO_OUTPUT),
    "an acknowledgement": Frame(FrameType.PREFILL, 2, SESSION, 0, 0, ROUTE, ACKNOWLEDGED, Flags.NO_OUTPUT),
    "a probe": Frame(
        FrameType.PROBE,
        0,
        SESSION,
        0,
        0,
        sign_route(ROUTES["one hop, the driver itself"], SESSION, SECRET),
        HIDDEN,
    ),
    "a close": Frame(FrameType.CLOSE, 0, SESSION, 8, 131, ROUTE, b""),
    "a close that keeps": Frame(FrameType.CLOSE, 0, SESSION, 0, 0, ROUTE, b"", Flags.KEEP),
    "a fork to hop 0": Frame(FrameType.FORK, 0, SESSION, 0, 130, ROUTE, bytes(range(16))),
    "its answer, the same at every stop": Frame(FrameType.FORK, 2, SESSION, 0, 130, ROUTE, bytes(range(16))),
    "whole sequences": Frame(FrameType.FORWARD, 0, SESSION, 3, 0, ROUTE, HIDDEN),
    "a resume to hop 0, hop 1 is new": Frame(
        FrameType.RESUME, 0, SESSION, 0, 130, ROUTE, encode_resume(Resume(BROKEN, frozenset({1})))
    ),
    "a replay to hop 0, which is not new": Frame(
        FrameType.REPLAY, 0, SESSION, 1, 0, ROUTE, encode_replay(Replay(frozenset({1}), 2))
    ),
    "the same to hop 1, which is new": Frame(
        FrameType.REPLAY, 1, SESSION, 1, 0, ROUTE, encode_replay(Replay(frozenset({1}), 2, HIDDEN))
    ),
    "a failure": Frame(
        FrameType.FAILURE, 1, SESSION, 7, 130, ROUTE, messages.encode_failure(FAILURE), epoch=2
    ),
    "a decode step whose hops are to say how long they took": Frame(
        FrameType.STEP, 0, SESSION, 9, 132, ROUTE, HIDDEN, Flags.LAST_ONLY | Flags.TIMED
    ),
    "how long it took hop 1: 1.5 ms and 20 ms": Frame(
        FrameType.TRACE, 1, SESSION, 9, 132, ROUTE, encode_trace(HopTrace(queue=0.0015, compute=0.02))
    ),
    "every number at its end": Frame(
        FrameType.STEP, MAX_HOPS, SESSION, 2**32 - 1, 2**32 - 1, ROUTE, b"", 255, 2**32 - 1
    ),
    "a type that nobody knows yet": Frame(200, 0, SESSION, 0, 0, b"", b"anything"),
    "no route and no payload": Frame(FrameType.CLOSE, 0, SessionId(bytes(16)), 0, 0, b"", b""),
}


def frame_meaning(frame: Frame) -> Vectors:
    meaning: Vectors = {
        "type": int(frame.type),
        "flags": int(frame.flags),
        "hop": frame.hop,
        "session": frame.session.hex(),
        "step": frame.step,
        "position": frame.position,
        "epoch": frame.epoch,
        "route": frame.route.hex(),
        "payload": bytes(frame.payload).hex(),
    }
    return meaning


def frames() -> Vectors:
    valid = [
        {"name": name, "bytes": encode_frame(frame).hex(), "meaning": frame_meaning(frame)}
        for name, frame in FRAMES.items()
    ]
    good = encode_frame(FRAMES["a decode step to hop 0"])

    def header(magic: int = MAGIC, version: int = 1, route: int = 0, payload: int = 0) -> bytes:
        return struct.pack("<HBBBBH16sIIII", magic, version, 1, 0, 0, route, SESSION, 0, 0, 0, payload)

    bad = [
        ("nothing", b""),
        ("39 bytes", header()[:-1]),
        ("another magic", header(magic=0x7AC0)),
        ("version 0", header(version=0)),
        ("version 2", header(version=2)),
        ("one byte short", good[:-1]),
        ("one byte long", good + b"\0"),
        ("a route that is not there", header(route=1)),
        ("a payload that is not there", header(payload=MAX_PAYLOAD_BYTES)),
        ("a payload above the limit", header(payload=MAX_PAYLOAD_BYTES + 1)),
        ("a payload of 4 GiB", header(payload=2**32 - 1)),
    ]
    return {"valid": valid, "refused": [refused(name, raw, decode_frame) for name, raw in bad]}


# ---- writing ----------------------------------------------------------------------------------


def refuse_changes(file: Path, new: Vectors) -> None:
    old = json.loads(file.read_text()) if file.exists() else {}
    for key, vectors in old.items():
        if isinstance(vectors, list) and (lost := [vector for vector in vectors if vector not in new[key]]):
            sys.exit(f"{file.name}: this would change or drop {lost[0]}")


def main() -> None:
    made = {"frames": frames(), "routes": routes(), "tensors": tensors(), "messages": control()}
    for name, vectors in made.items():
        file = FOLDER / f"{name}.json"
        content = {"about": ABOUT, **vectors}
        refuse_changes(file, content)
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
