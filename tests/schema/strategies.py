"""What the property tests feed to the contract: valid things, broken things, and anything at all."""

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from schema.frames import Frame, FrameType
from schema.ids import PeerId, SessionId, Span
from schema.limits import MAX_BLOCKS, MAX_HOPS, MAX_RANK, MAX_TENSORS
from schema.routes import Hop, Route
from schema.tensors import ITEM_BYTES, DType, Role, WireTensor

U8 = st.integers(0, 0xFF)
U32 = st.integers(0, 0xFFFF_FFFF)
SECRETS = st.binary(min_size=32, max_size=32)
SESSIONS = st.binary(min_size=16, max_size=16).map(SessionId)
PEERS = st.binary(min_size=8, max_size=8).map(lambda raw: PeerId(raw.hex()))


@st.composite
def spans(draw: st.DrawFn) -> Span:
    start = draw(st.integers(0, MAX_BLOCKS - 1))
    return Span(start, draw(st.integers(start + 1, MAX_BLOCKS)))


HOPS = st.builds(Hop, PEERS, spans())
ROUTES = st.builds(
    Route,
    origin=PEERS,
    hops=st.lists(HOPS, min_size=1, max_size=4).map(tuple),
    model_key=st.binary(min_size=8, max_size=8),
    expires=U32,
)
FRAMES = st.builds(
    Frame,
    type=st.sampled_from(FrameType).map(int) | U8,
    hop=st.integers(0, MAX_HOPS),
    session=SESSIONS,
    step=U32,
    position=U32,
    route=st.binary(max_size=100),
    payload=st.binary(max_size=100),
    flags=U8,
    epoch=U32,
)


@st.composite
def wire_tensors(draw: st.DrawFn) -> WireTensor:
    dtype = draw(st.sampled_from(DType))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=MAX_RANK)))
    size = ITEM_BYTES[dtype]
    for dim in shape:
        size *= dim
    return WireTensor(
        dtype, shape, draw(st.binary(min_size=size, max_size=size)), draw(st.sampled_from(Role))
    )


TENSOR_LISTS = st.lists(wire_tensors(), max_size=MAX_TENSORS)


# ---- messages: a strategy for any struct, from what its type says ------------------------------


def structs(union: Any) -> st.SearchStrategy[Any]:
    """Valid structs of a type, or of the members of a union."""
    plain = _values(inspect.type_info(union))
    return plain.map(lambda value: msgspec.convert(value, union, str_keys=True))


def _values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Plain values that a type accepts."""
    match kind:
        case inspect.Metadata():
            return _values(kind.type)
        case inspect.UnionType():
            return st.one_of([_values(member) for member in kind.types])
        case inspect.StructType():
            return _fields(kind)
        case inspect.ListType():
            most = 3 if kind.max_length is None else min(kind.max_length, 3)
            return st.lists(_values(kind.item_type), min_size=kind.min_length or 0, max_size=most)
        case inspect.DictType():
            most = 3 if kind.max_length is None else min(kind.max_length, 3)
            return st.dictionaries(_values(kind.key_type), _values(kind.value_type), max_size=most)
        case inspect.AnyType():
            return JSON
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.BytesType():
            return st.binary(max_size=30)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case _:
            return _scalars(kind)


def _scalars(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern.replace("$", r"\Z"))
        case inspect.StrType():
            most = 40 if kind.max_length is None else min(kind.max_length, 40)
            return st.text(min_size=kind.min_length or 0, max_size=most)
        case inspect.IntType():
            return st.integers(kind.ge, kind.le)
        case inspect.FloatType():
            return st.floats(
                min_value=kind.ge if kind.gt is None else kind.gt,
                max_value=kind.le,
                exclude_min=kind.gt is not None,
                allow_nan=False,
                allow_infinity=False,
            )
        case _:
            raise NotImplementedError(f"no strategy for {kind}")


def _fields(kind: inspect.StructType) -> st.SearchStrategy[dict[str, Any]]:
    required = {field.encode_name: _values(field.type) for field in kind.fields if field.required}
    optional = {field.encode_name: _values(field.type) for field in kind.fields if not field.required}
    if kind.tag is not None:
        required["type"] = st.just(kind.tag)
    return st.fixed_dictionaries(required, optional=optional)


# ---- broken ------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


@st.composite
def mutations(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """Valid bytes with one to three changes: bytes changed, cut out, put in, or the end cut off."""
    raw = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        match draw(st.sampled_from(["change", "remove", "insert", "cut"])):
            case "change":
                raw[at : at + 1] = bytes([draw(U8)])
            case "remove":
                del raw[at : at + draw(st.integers(1, 8))]
            case "insert":
                raw[at:at] = draw(st.binary(min_size=1, max_size=8))
            case _:
                del raw[at:]
    return bytes(raw)


def text_of(message: Any) -> bytes:
    return msgspec.json.encode(message)
