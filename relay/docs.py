"""The description of the HTTP interface as it is served: `/openapi.json`, and `/docs` for people.

The page is plain HTML made from the same document, once a process, under the page's own policy: no script but
the one that applies the chosen theme, no library, nothing from elsewhere. Does not know operations.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from html import escape
from re import sub
from typing import Any, cast

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from relay.openapi import Access, access_of
from relay.web_files import SECURITY_HEADERS, WEB

DOCUMENT = WEB / "openapi.json"
HEADERS = SECURITY_HEADERS | {"Cache-Control": "no-cache"}
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "minLength": "at least {} long",
    "maxLength": "at most {} long",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
    "pattern": "as {}",
}
_ACCESS: Mapping[Access, str] = {
    "everyone": "Everybody.",
    "client": "A client's token: <code>Authorization: Bearer TOKEN</code>.",
    "holder": "A client's token, or a page that is signed in.",
    "admin": "An admin's token, or a page that is signed in with one.",
    "viewer": "A client's token, a page that is signed in, or everybody where the relay is open.",
    "volunteer": "A volunteer's token.",
}

Json = Mapping[str, Any]
_JSON = "application/json"


async def openapi(request: Request) -> Response:
    """`GET /openapi.json`."""
    return FileResponse(DOCUMENT, media_type=_JSON, headers=HEADERS)


async def docs(request: Request) -> Response:
    """`GET /docs`."""
    return Response(page(), headers=HEADERS, media_type="text/html")


@lru_cache(maxsize=1)
def page() -> str:
    """The whole page; it is the same until the next release."""
    return render(msgspec.json.decode(DOCUMENT.read_bytes()))


def render(document: Json) -> str:
    """HTML of an OpenAPI document that relay/openapi.py has made."""
    operations = [
        (tag["name"], [_operation(*one, document) for one in _of_tag(document, tag["name"])])
        for tag in document["tags"]
    ]
    contents = [_contents(tag["name"], _of_tag(document, tag["name"])) for tag in document["tags"]]
    sections = [f"<section><h2>{escape(tag)}</h2>{''.join(made)}</section>" for tag, made in operations]
    shapes = [_shape(name, schema) for name, schema in document["components"]["schemas"].items()]
    return _PAGE.format(
        introduction=_words(document["info"]["description"]),
        version=escape(document["info"]["version"]),
        contents="".join(contents),
        sections="".join(sections),
        shapes="".join(shapes),
    )


def _of_tag(document: Json, tag: str) -> list[tuple[str, str, Json]]:
    """Path, method and operation of all that have a tag."""
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if tag in operation["tags"]
    ]


def _contents(tag: str, operations: Iterable[tuple[str, str, Json]]) -> str:
    links = [
        f'<li><a href="#{one["operationId"]}">{_method(method)} <code>{escape(path)}</code></a></li>'
        for path, method, one in operations
    ]
    return f"<h2>{escape(tag)}</h2><ul>{''.join(links)}</ul>"


def _operation(path: str, method: str, one: Json, document: Json) -> str:
    parts = [
        f'<article id="{one["operationId"]}">',
        f"<h3>{_method(method)} <code>{escape(path)}</code></h3>",
        f"<p><strong>{_words(one['summary'])}.</strong> {_words(one.get('description', ''))}</p>",
        f"<p><em>Who may:</em> {_ACCESS[access_of(one['security'])]}</p>",
    ]
    if "parameters" in one:
        parts += ["<h4>Parameters</h4>", _rows(_parameter(parameter) for parameter in one["parameters"])]
    if "requestBody" in one:
        ((kind, media),) = one["requestBody"]["content"].items()
        said = "" if kind == _JSON else f", as <code>{escape(kind)}</code>"
        parts += ["<h4>Body</h4>", f"<p>{_type(media['schema'])}{said}</p>"]
        if "example" in media:
            example = msgspec.json.format(msgspec.json.encode(media["example"])).decode()
            parts.append(f"<pre tabindex=0><code>{escape(example)}</code></pre>")
    parts += ["<h4>Answers</h4>", _rows(_answers(one["responses"], document)), "</article>"]
    return "".join(parts)


def _parameter(one: Json) -> tuple[str, str]:
    kind = f"<code>{escape(one['name'])}</code> <span>in the {one['in']}, {_type(one['schema'])}</span>"
    return kind, _words(one["description"])


def _answers(responses: Json, document: Json) -> Iterable[tuple[str, str]]:
    for status, answer in responses.items():
        if "$ref" in answer:
            told = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
            wait = " with <code>Retry-After</code>" if "Retry-After" in told.get("headers", {}) else ""
            yield f"<code>{status}</code> <span>an error{wait}</span>", _words(told["description"])
            continue
        kinds = [
            f"{_type(_held(media['schema']))} as <code>{escape(name)}</code>"
            for name, media in answer.get("content", {}).items()
        ]
        yield (
            f"<code>{status}</code> <span>{' or '.join(kinds) or 'no body'}</span>",
            _words(answer["description"]),
        )


def _held(schema: Json) -> Json:
    """Of a stream's event, what is in it."""
    if "properties" not in schema:
        return schema
    return schema["properties"]["data"]["anyOf"][1]["contentSchema"]["anyOf"][0]


def _shape(name: str, schema: Json) -> str:
    required = schema.get("required", ())
    fields: list[tuple[str, str]] = []
    for field, told in schema.get("properties", {}).items():
        kind = _type(told) + (", required" if field in required else "")
        term = f"<code>{escape(field)}</code> <span>{kind}</span>"
        fields.append((term, _words(told.get("description", ""))))
    about = _words(schema.get("description", ""))
    return f'<article id="{escape(name)}"><h3>{escape(name)}</h3><p>{about}</p>{_rows(fields)}</article>'


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    """`rows`: HTML of terms and of what is said about them."""
    made = [f"<div><dt>{term}</dt><dd>{about}</dd></div>" for term, about in rows]
    return f"<dl>{''.join(made)}</dl>"


def _type(schema: Json) -> str:
    """A JSON Schema in words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f"<code>{_json(value)}</code>" for value in values)
    kind = schema.get("type", "anything")
    if kind == "array":
        said = f"list of {_type(schema.get('items', {}))}"
    elif kind == "object" and isinstance(held := schema.get("additionalProperties"), dict):
        said = f"object of {_type(cast(Json, held))}"
    elif "properties" in schema:
        said = "fields " + " and ".join(f"<code>{escape(name)}</code>" for name in schema["properties"])
    else:
        said = escape(str(kind))
    limits = [words.format(_json(schema[name])) for name, words in _LIMITS.items() if name in schema]
    return ", ".join([said, *limits])


def _json(value: Any) -> str:
    return escape(msgspec.json.encode(value).decode())


def _method(method: str) -> str:
    return f'<span class="method {method}">{method.upper()}</span>'


def _words(text: str) -> str:
    """Text with its code marks as HTML."""
    return sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Corolla: HTTP interface</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="Every operation of the relay's HTTP interface.">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="/static/favicon.svg" type="image/svg+xml">
<script src="/static/js/theme.js"></script>
<link rel="stylesheet" href="/static/css/tokens.css">
<link rel="stylesheet" href="/static/css/base.css">
<link rel="stylesheet" href="/static/css/docs.css">
</head>
<body>
<a class="skip" href="#start">Skip to the operations</a>
<header>
<h1>Corolla's HTTP interface</h1>
<p>Version {version}. <a href="/openapi.json">openapi.json</a> says the same to programs.
<a href="/">To the chat</a></p>
</header>
<nav aria-label="Operations">{contents}<h2><a href="#shapes">Shapes</a></h2></nav>
<main id="start">
<p>{introduction}</p>
{sections}
<section id="shapes"><h2>Shapes</h2>{shapes}</section>
</main>
</body>
</html>
"""
