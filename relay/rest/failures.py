"""Every error of a handler as an answer in the API's shape. Does not know the handlers."""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from relay.counting import CLIENT_LEFT
from relay.http import error_response, json_response, named_error
from relay.services import services_of
from relay.web_files import not_found, wants_page
from schema.api.errors import error_body
from schema.errors import CorollaError

log = logging.getLogger(__name__)


async def on_error(request: Request, error: Exception) -> Response:
    """Every named error of a handler, in the API's shape; any other is a mistake here, which uvicorn logs."""
    named = error if isinstance(error, CorollaError) else CorollaError("the relay made a mistake here")
    services_of(request.scope).metrics.refuse(named.code)
    return error_response(named)


async def on_client_left(request: Request, error: Exception) -> Response:
    """Somebody has gone before the body that he sends was whole. Nobody reads this answer: it is counted."""
    log.info("a client left before its request was whole")
    return Response(status_code=CLIENT_LEFT)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself, in the API's shape, with the status and headers that it chose.

    To people who look at an address where there is nothing, a page says so.
    """
    if not isinstance(error, HTTPException):
        return await on_error(request, error)
    named = named_error(error, request.url.path)
    services_of(request.scope).metrics.refuse(named.code)
    if error.status_code == 404 and wants_page(request):
        return not_found()
    return json_response(error_body(named), error.status_code, error.headers)
