"""An adapter for scripts that were written for Petals' chat server: `/api/v1/generate`, `/api/v2/generate`.

New programs take `/v1` instead. Everything goes the way that `/v1` goes: the same heads, the same limits, the
same errors, told in Petals' shape. Such scripts have no token; where the operator has set PETALS_TOKEN, they
act with that one. HTTP sessions (`open_inference_session` of v1) are not served: a chat's next turn is read
as quickly without. Does not know how a text becomes a reply: that is relay/petals.py.
"""

import asyncio
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from relay import petals
from relay.access import client_token
from relay.http import (
    bearer_token,
    count_server_refusal,
    deny_upgrade,
    disconnected,
    error_headers,
    json_response,
    read_body,
)
from relay.services import Services, services_of
from schema.errors import CorollaError, InvalidRequest, Unauthorized, UnexpectedMessage
from schema.messages import Finished
from schema.petals import (
    GenerateStep,
    Opened,
    OpenSession,
    PetalsFailure,
    PetalsOutputs,
    PetalsRequest,
    Piece,
    decode_from_script,
    generate_of,
)

FORM = "application/x-www-form-urlencoded"
MOST_WAITING = 4
"""Messages that a script may be ahead."""
GOODBYE_SECONDS = 2.0
"""How long a script may take to accept the end of its session."""
_encoder = msgspec.json.Encoder()


async def generate(request: Request) -> Response:
    """`GET` and `POST /api/v1/generate`; whoever asks for the headers alone has nothing generated."""
    services = services_of(request.scope)
    try:
        asker = await _require_asker(request)
        asked = await _asked(request)
        if request.method == "HEAD":
            return Response(media_type="application/json")
        return GenerateResponse(services, asker, asked)
    except CorollaError as error:
        return _refusal(services, error)


class GenerateResponse(Response):
    """Sends the outputs when all are there; the reply is cancelled when the client goes away before."""

    def __init__(self, services: Services, asker: str, asked: PetalsRequest) -> None:
        super().__init__()
        self._services = services
        self._asker = asker
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        working = asyncio.create_task(self._outputs())
        leaving = asyncio.create_task(disconnected(receive))
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await self._answer(working)(scope, receive, send)
        finally:
            for task in (working, leaving):
                task.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)

    def _answer(self, working: asyncio.Task[str]) -> Response:
        try:
            return json_response(PetalsOutputs(outputs=working.result()))
        except CorollaError as error:
            return _refusal(self._services, error)

    async def _outputs(self) -> str:
        services, asker, asked = self._services, self._asker, self._asked
        model, text = petals.model_of(services, asked.model), asked.text
        tokens = await petals.tokens_allowed(services, asker, asked, model, text)
        async with petals.start(services, asker, asked, model, text, tokens) as reply:
            return await petals.whole_text(reply)


def _refusal(services: Services, error: CorollaError) -> Response:
    services.metrics.refuse(error.code)
    return json_response(PetalsFailure(traceback=error.message), error.http_status, error_headers(error))


async def _require_asker(connection: HTTPConnection) -> str:
    """The id of the token that a script acts with: its own, or the one that the operator has named.

    Raises:
        Unauthorized: there is none, or it is no good. Forbidden: it is a volunteer's.
    """
    services = services_of(connection.scope)
    if "authorization" in connection.headers:
        shown = bearer_token(connection.scope)
    elif services.settings.petals_token is not None:
        shown = services.settings.petals_token
    else:
        raise Unauthorized(
            "send a client's token in the header 'Authorization: Bearer TOKEN'; for scripts that send none, "
            "the relay's operator can name one in PETALS_TOKEN"
        )
    return (await client_token(services, shown)).id


async def _asked(request: Request) -> PetalsRequest:
    """The request, from the query, and from a form or JSON in the body.

    Raises:
        InvalidRequest: it is not understood; names the field. TooLarge: as `read_body`.
    """
    fields: dict[str, Any] = dict(request.query_params)
    body = await read_body(request) if request.method == "POST" else b""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
        try:
            fields |= dict(parse_qsl(body.decode(), keep_blank_values=True, errors="strict"))
        except UnicodeError as error:
            raise InvalidRequest(f"the form is not UTF-8: {error}") from error
    elif body:
        return await _from_json(body, fields)
    return generate_of(fields, is_text=True)


async def _from_json(body: bytes, fields: dict[str, Any]) -> PetalsRequest:
    if fields:
        raise InvalidRequest("say everything in the query, or everything in the JSON")
    try:
        told: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is neither a form nor JSON: {error}") from error
    return generate_of(told, is_text=False)


# ---- /api/v2/generate ----


class ScriptGone(Exception):
    """The socket is closed: there is nobody to tell anything."""


async def generate_endpoint(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application behind `/api/v2/generate`."""
    services, socket = services_of(scope), WebSocket(scope, receive, send)
    with ExitStack() as stack:
        try:
            asker = await _require_asker(socket)
            owner = await services.allowances.owner_of(asker)
            stack.enter_context(services.open_pages.place(owner, ""))
        except CorollaError as error:
            services.metrics.refuse(error.code)
            await deny_upgrade(receive, send, error)
            return
        await socket.accept()
        session = Session(services, socket, asker)
        services.hub.add_page(session)
        stack.callback(services.hub.remove_page, session)
        await session.run()


class Session:
    """One script's session: all text so far. The hub knows it as a page. Belongs to the connection's task."""

    def __init__(self, services: Services, socket: WebSocket, asker: str) -> None:
        self.token_id = asker
        self._services = services
        self._socket = socket
        self._model = ""
        self._text = ""
        self._max_length = 0
        self._length = 0
        """Tokens of the text, as the last reply has told."""
        self._ending: CorollaError | None = None
        self._over = asyncio.Event()
        self._is_replying = False
        self._is_leaving = False
        """Whether the session ends with its present reply, as the replica stops."""

    def end(self, error: CorollaError) -> None:
        """End the session, saying why."""
        self._ending = self._ending or error
        self._over.set()

    def send_elsewhere(self, within_seconds: float) -> None:
        """End the session, but not in the middle of a reply."""
        self._is_leaving = True
        if not self._is_replying:
            self._over.set()

    async def run(self) -> None:
        """Serve the script until either side is done; an error ends a session, as it does with Petals."""
        heard: asyncio.Queue[str | None] = asyncio.Queue(MOST_WAITING)
        work = (self._listen(heard), self._serve(heard), self._over.wait())
        tasks = [asyncio.ensure_future(one) for one in work]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        failure = next((one for one in results if isinstance(one, CorollaError)), self._ending)
        with suppress(ScriptGone, TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._say_goodbye(failure)
        for one in results:
            if isinstance(one, Exception) and not isinstance(one, CorollaError | ScriptGone):
                raise one

    async def _say_goodbye(self, failure: CorollaError | None) -> None:
        if failure is not None:
            self._services.metrics.refuse(failure.code)
            await self._say(PetalsFailure(traceback=failure.message))
        with suppress(WebSocketDisconnect, RuntimeError, OSError):
            await self._socket.close(1000 if failure is None else failure.close_code)

    async def _listen(self, heard: asyncio.Queue[str | None]) -> None:
        """Ends when the script has gone, whatever is generated for it then."""
        while True:
            event = await self._socket.receive()
            if event["type"] == "websocket.disconnect":
                count_server_refusal(event, self._services.metrics)
                raise ScriptGone
            await heard.put(event.get("text"))

    async def _serve(self, heard: asyncio.Queue[str | None]) -> None:
        opening = _decoded(await heard.get())
        if not isinstance(opening, OpenSession):
            raise UnexpectedMessage("a session begins with 'open_inference_session'")
        self._model = petals.model_of(self._services, opening.model)
        self._services.swarm.require_heads(self._model)
        self._max_length = opening.max_length
        await self._say(Opened())
        while True:
            step = _decoded(await heard.get())
            if not isinstance(step, GenerateStep):
                raise UnexpectedMessage("the session is open already: send 'generate'")
            self._is_replying = True
            await self._generate(step)
            self._is_replying = False
            if self._is_leaving:
                return

    async def _generate(self, step: GenerateStep) -> None:
        services = self._services
        if step.model not in (None, self._model):
            raise InvalidRequest(f"this session is one of {self._model!r}: open another one", param="model")
        left = self._max_length - self._length
        if left <= 0:
            raise InvalidRequest(
                "the session's 'max_length' is used up: open another one", param="max_length"
            )
        self._text += step.text
        is_streamed = step.stop_sequence is not None
        tokens = left
        if not is_streamed:
            tokens = await petals.tokens_allowed(services, self.token_id, step, self._model, self._text)
        text, told, waiting = self._text, 0, ""
        async with petals.start(services, self.token_id, step, self._model, text, min(tokens, left)) as reply:
            async for event in petals.events_of(reply):
                if isinstance(event, Finished):
                    self._finish(event, step)
                    rest = event.usage.completion_tokens - told
                    await self._say(Piece(outputs=waiting, stop=True, token_count=rest))
                    continue
                self._text += event.text
                waiting += event.text
                if is_streamed:
                    await self._say(Piece(outputs=waiting, stop=False, token_count=event.tokens - told))
                    told, waiting = event.tokens, ""

    def _finish(self, event: Finished, step: GenerateStep) -> None:
        self._length = event.usage.total_tokens
        if event.reason == "stop" and step.stop_sequence is not None:
            self._text += step.stop_sequence  # the script takes it as read

    async def _say(self, message: msgspec.Struct) -> None:
        try:
            await self._socket.send_text(_encoder.encode(message).decode())
        except (WebSocketDisconnect, RuntimeError, OSError) as error:  # what a closed socket raises
            raise ScriptGone from error


def _decoded(text: str | None) -> OpenSession | GenerateStep:
    if text is None:
        raise InvalidRequest("only text messages are understood here")
    return decode_from_script(text)
