"""The OpenAPI 3.1 description of the relay's HTTP interface, made from its table of operations.

    operations (relay/operations) and structs (schema/) -> document() -> web/openapi.json -> GET /openapi.json

Shapes are msgspec's own JSON Schema, which OpenAPI 3.1 takes as it is (https://spec.openapis.org/oas/v3.1.1);
what a field means are the words below it in the source; what an error means is in schema/errors.py.
`scripts/openapi` writes the file, so that nothing of this runs in a relay. Does not know handlers.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import msgspec
from msgspec import Struct
from msgspec import inspect as types

import schema.errors
from schema.api import ErrorBody
from schema.errors import CorollaError, Forbidden, InvalidRequest, TooLarge, Unauthorized, Unavailable

API_VERSION = "1"
"""Of the interface: a change that breaks clients gives it another one."""
INTRODUCTION = (
    "Large language models, held together by volunteers. `/v1` speaks as OpenAI's interface does, `/api` "
    "tells of the swarm. Every error has OpenAI's shape: `error.code` is its stable name, `error.message` "
    "says cause and remedy. Where trying again makes sense, `Retry-After` says after how many seconds. A "
    "path that does not exist is answered with 404, a method that a path does not have with 405."
)

Json = dict[str, Any]
Access = Literal["client", "holder", "admin", "viewer", "volunteer", "everyone"]
"""`client`: a client's token, or an admin's. `holder`: that, or a page's cookie. `admin`: either, of an
admin. `viewer`: as `holder`, or anybody where the relay is open. `volunteer`: a volunteer's token."""
_SECURITY: dict[Access, list[Json]] = {
    "client": [{"token": []}],
    "holder": [{"token": []}, {"page": []}],
    "admin": [{"token": ["admin"]}, {"page": ["admin"]}],
    "viewer": [{"token": []}, {"page": []}, {}],
    "volunteer": [{"machine": []}],
    "everyone": [],
}
_REFUSALS: dict[Access, tuple[type[CorollaError], ...]] = {
    "client": (Unauthorized, Forbidden, Unavailable),
    "holder": (Unauthorized, Forbidden, Unavailable),
    "admin": (Unauthorized, Forbidden, Unavailable),
    "viewer": (Unauthorized, Forbidden, Unavailable),
    "volunteer": (Unauthorized, Forbidden, Unavailable),
    "everyone": (),
}
_SCHEMES: Json = {
    "token": {"type": "http", "scheme": "bearer", "description": "A client's or an admin's access token."},
    "machine": {"type": "http", "scheme": "bearer", "description": "A volunteer's access token."},
    "page": {
        "type": "apiKey",
        "in": "cookie",
        "name": "corolla_session",
        "description": "A page's sign-in, see `POST /api/session`.",
    },
}
JSON = "application/json"
DONE = "[DONE]"
"""The last event of a stream that was not broken off."""
_REF = "#/components/{}/{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A body with a status that is no error."""

    meaning: str
    status: int = 200
    shape: type | tuple[type, ...] | None = None
    """Of the body, or of each server-sent event; several: each is one of them. None: text, or no body at
    all where `media` is empty."""
    media: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    """Names, and what they mean."""

    @property
    def shapes(self) -> tuple[type | None, ...]:
        return self.shape if isinstance(self.shape, tuple) else (self.shape,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path. Errors that all of its kind share are not listed: of access, of a body, 500."""

    method: str
    path: str
    tag: str
    summary: str
    access: Access
    answers: tuple[Answer, ...]
    description: str = ""
    in_path: tuple[tuple[str, str], ...] = ()
    """Names in the path, and what they mean."""
    query: type[Struct] | None = None
    """What the query's fields are decoded as."""
    headers: tuple[tuple[str, str], ...] = ()
    """Of the request, that may be left out, and what they mean."""
    body: Any = None
    """Shape of the request's JSON."""
    form: Json | None = None
    """JSON Schema of the request's form, in place of that."""
    example: Any = None
    """Of a body."""
    errors: tuple[type[CorollaError], ...] = ()
    failure: Any = None
    """Shape of an error's body, where it is another than everywhere."""

    @property
    def all_errors(self) -> list[type[CorollaError]]:
        """By code; sorted."""
        of_body = () if self.body is None and self.form is None else (InvalidRequest, TooLarge)
        of_query = () if self.query is None else (InvalidRequest,)
        found = {CorollaError, *_REFUSALS[self.access], *of_body, *of_query, *self.errors}
        return sorted(found, key=lambda error: (error.http_status, error.code))


def access_of(security: list[Json]) -> Access:
    """Who may, by what a description says of it."""
    return next(access for access, told in _SECURITY.items() if told == security)


def document(operations: Sequence[Operation]) -> Json:
    """The whole description, ready to be written as JSON."""
    shapes = _Shapes(operations)
    paths: dict[str, Json] = {}
    answers: dict[str, Json] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, shapes, answers)
    return {
        "openapi": "3.1.1",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {"title": "Corolla", "version": API_VERSION, "description": INTRODUCTION},
        "tags": [{"name": tag} for tag in dict.fromkeys(one.tag for one in operations)],
        "paths": paths,
        "components": {
            "schemas": shapes.components,
            "responses": dict(sorted(answers.items())),
            "securitySchemes": _SCHEMES,
        },
    }


def _operation(one: Operation, shapes: "_Shapes", answers: dict[str, Json]) -> Json:
    told: Json = {"summary": one.summary, "operationId": _name_of(one), "tags": [one.tag]}
    if one.description:
        told["description"] = one.description
    told["security"] = _SECURITY[one.access]
    if parameters := _parameters(one, shapes):
        told["parameters"] = parameters
    if one.body is not None:
        media: Json = {"schema": shapes.of(one.body)}
        if one.example is not None:
            media["example"] = one.example
        told["requestBody"] = {"required": True, "content": {JSON: media}}
    elif one.form is not None:
        told["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": one.form}}}
    responses: Json = {}
    for answer in one.answers:
        _add_answer(responses, answer, shapes)
    for status in dict.fromkeys(error.http_status for error in one.all_errors):
        errors = [error for error in one.all_errors if error.http_status == status]
        name = f"{status}.{'.'.join(error.code for error in errors)}"
        shape = _error_shape(errors)
        if one.failure is not None:
            name, shape = f"{name}.{one.failure.__name__}", shapes.of(one.failure)
        answers.setdefault(name, _error_answer(status, errors, shape))
        responses[str(status)] = {"$ref": _REF.format("responses", name)}
    told["responses"] = responses
    return told


def _name_of(one: Operation) -> str:
    words = re.findall(r"\w+", one.path)
    return "_".join([one.method.lower(), *words])


def _parameters(one: Operation, shapes: "_Shapes") -> list[Json]:
    found: list[Json] = []
    for name, meaning in one.in_path:
        schema: Json = {"type": "string", "minLength": 1}
        found.append({"name": name, "in": "path", "required": True, "description": meaning, "schema": schema})
    if one.query is not None:
        notes = field_notes(one.query)
        shape = shapes.inline(one.query)
        for name, schema in shape["properties"].items():
            is_required = name in shape["required"]
            told = {"name": name, "in": "query", "required": is_required, "description": notes.get(name, "")}
            found.append(told | {"schema": schema})
    for name, meaning in one.headers:
        told = {"name": name, "in": "header", "required": False, "description": meaning}
        found.append(told | {"schema": {"type": "string"}})
    return found


def _add_answer(responses: Json, answer: Answer, shapes: "_Shapes") -> None:
    told: Json = responses.setdefault(str(answer.status), {"description": ""})
    told["description"] = " ".join(filter(None, [told["description"], answer.meaning]))
    for name, meaning in answer.headers:
        header: Json = {"description": meaning, "schema": {"type": "string"}}
        told.setdefault("headers", {})[name] = header
    if not answer.media:
        return
    if answer.shape is None:
        media: Json = {"schema": {"type": "string"}}
    elif answer.media == "text/event-stream":
        media = {"schema": _event(shapes.of(answer.shape))}
    else:
        media = {"schema": shapes.of(answer.shape)}
    told.setdefault("content", {})[answer.media] = media


def _event(shape: Json) -> Json:
    """Each of a stream's events: before 3.2, OpenAPI's `schema` of a stream is that of one event."""
    error = {"$ref": _REF.format("schemas", ErrorBody.__name__)}
    holding: Json = {"type": "string", "contentMediaType": JSON, "contentSchema": {"anyOf": [shape, error]}}
    data: Json = {"anyOf": [{"const": DONE}, holding]}
    return {"type": "object", "required": ["data"], "properties": {"data": data}}


def _error_shape(errors: list[type[CorollaError]]) -> Json:
    codes: Json = {"properties": {"error": {"properties": {"code": {"enum": [one.code for one in errors]}}}}}
    return {"allOf": [{"$ref": _REF.format("schemas", ErrorBody.__name__)}, codes]}


def _error_answer(status: int, errors: list[type[CorollaError]], shape: Json) -> Json:
    meanings = error_meanings()
    lines = [f"`{one.code}`: {meanings.get(one.__name__, 'a mistake of the relay')}" for one in errors]
    told: Json = {"description": "; ".join(lines) + "."}
    if status == 503:
        seconds = {"type": "integer", "minimum": 0}
        wait = "Seconds after which trying again makes sense; left out where it is not known."
        told["headers"] = {"Retry-After": {"description": wait, "schema": seconds}}
    if status == 401:
        told["headers"] = {"WWW-Authenticate": {"schema": {"const": "Bearer"}}}
    return told | {"content": {JSON: {"schema": shape}}}


class _Shapes:
    """JSON Schemas of everything that the operations name."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        kinds: list[Any] = [ErrorBody]
        for one in operations:
            kinds += [one.body, one.failure]
            for answer in one.answers:
                kinds += answer.shapes
        self._kinds = [kind for kind in kinds if kind is not None]
        found, self.components = msgspec.json.schema_components(
            self._kinds, ref_template=_REF.format("schemas", "{name}")
        )
        self._found = list(found)
        for struct in set(_structs_in(self._kinds)):
            component = self.components.get(struct.__name__)
            if component is not None:
                _explain(component, field_notes(struct))

    def of(self, kind: Any) -> Json:
        if isinstance(kind, tuple):
            return {"anyOf": [self.of(one) for one in cast(tuple[Any, ...], kind)]}
        return self._found[self._kinds.index(kind)]

    def inline(self, kind: type[Struct]) -> Json:
        """The schema of a struct that holds no others."""
        return msgspec.json.schema(kind)["$defs"][kind.__name__]


def _explain(component: Json, notes: dict[str, str]) -> None:
    for name, told in component.get("properties", {}).items():
        if name in notes:
            told.setdefault("description", notes[name])


def _structs_in(kinds: Iterable[Any]) -> Iterator[type[Struct]]:
    """All structs that these types are made of, each at least once."""
    waiting = list(types.multi_type_info(kinds))
    seen: set[type] = set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, types.StructType):
            if one.cls in seen:
                continue
            seen.add(one.cls)
            yield one.cls
            waiting += [field.type for field in one.fields]
        elif isinstance(one, types.UnionType):
            waiting += one.types
        elif isinstance(one, types.ListType | types.VarTupleType):
            waiting.append(one.item_type)
        elif isinstance(one, types.DictType):
            waiting.append(one.value_type)
        elif isinstance(one, types.Metadata):
            waiting.append(one.type)


def field_notes(struct: type[Struct]) -> dict[str, str]:
    """What the source says below each field of a struct, by the field's name."""
    notes: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        if not issubclass(base, Struct) or base.__module__.partition(".")[0] not in ("schema", "relay"):
            continue
        (declared,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = declared.body if isinstance(declared, ast.ClassDef) else []
        for field, note in pairwise(body):
            match field, note:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    notes[name] = inspect.cleandoc(words)
                case _:
                    pass
    return notes


def error_meanings() -> dict[str, str]:
    """What each error means, by its class's name: the tree that schema/errors.py begins with."""
    rows = re.findall(r"\u2500\u2500 (\w+) {2,}(.+)", schema.errors.__doc__ or "")
    return {name: meaning.strip() for name, meaning in rows}
