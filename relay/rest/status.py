"""The models that answer, health and figures over REST. Does not know how they come about."""

from starlette.requests import Request
from starlette.responses import Response

from relay.access import require_client
from relay.http import json_response
from relay.services import services_of
from schema.api.models import ModelEntry, ModelList


async def models(request: Request) -> Response:
    """`GET /v1/models`: the models that would answer now."""
    await require_client(request)
    services = services_of(request.scope)
    status = services.swarm.status()
    entries = [ModelEntry(id=model.id, created=services.started) for model in status.models if model.complete]
    return json_response(ModelList(data=entries))


async def model(request: Request) -> Response:
    """`GET /v1/models/{id}`: whether one would answer now; 503 says why it would not."""
    await require_client(request)
    services = services_of(request.scope)
    name: str = request.path_params["id"]
    services.swarm.require_heads(name)
    return json_response(ModelEntry(id=name, created=services.started))


async def healthz(request: Request) -> Response:
    """`GET /healthz`: the process answers."""
    return Response("ok\n", media_type="text/plain")


async def readyz(request: Request) -> Response:
    """`GET /readyz`: the database answers too; 503 otherwise."""
    await services_of(request.scope).store.ping()
    return Response("ready\n", media_type="text/plain")


async def metrics(request: Request) -> Response:
    """`GET /metrics`, for Prometheus."""
    services = services_of(request.scope)
    return Response(services.metrics.render(), media_type="text/plain; version=0.0.4")
