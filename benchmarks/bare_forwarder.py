"""The yardstick of `benchmarks.relay`: a forwarder that checks nothing, on the same uvicorn."""

import sys

import uvicorn

from relay.commands.serve import server_config
from relay.settings import Settings

receivers: dict[str, object] = {}


async def app(scope, receive, send):  # pyright: ignore[reportMissingParameterType]
    """`/receive` takes what `/send` sends."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"] == "/receive":
        receivers["one"] = send
    while (message := await receive())["type"] != "websocket.disconnect":
        await receivers["one"]({"type": "websocket.send", "bytes": message["bytes"]})  # pyright: ignore


if __name__ == "__main__":
    config = server_config(Settings(port=int(sys.argv[1])), app)
    config.lifespan = "off"
    uvicorn.Server(config).run()
