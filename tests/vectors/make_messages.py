"""The control messages of the golden vectors: one of each type, every field with a telling value."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from schema import browser, messages
from schema.errors import MalformedMessage
from schema.generation import (
    HeadTiming,
    HopTiming,
    JsonFormat,
    Message,
    Pause,
    PromptDetails,
    Sampling,
    ScoredToken,
    Stopping,
    Timing,
    TokenLogprob,
    Tool,
    ToolCall,
    Tools,
    Usage,
)
from schema.ids import PeerId
from schema.swarm import MissingBlocks, ModelStatus, SwarmStatus, VolunteerStatus

SESSION = "00112233445566778899aabbccddeeff"
DRIVER = PeerId("d0d1d2d3d4d5d6d7")
FIRST = PeerId("0a0a0a0a0a0a0a0a")
SECOND = PeerId("ffffffffffffffff")
ROUTE = bytes(range(52))
FAILURE = messages.Failure(code="kv_cache_full", message="no memory: try again", retry_after=1.5, hop=1)
ERROR = messages.ErrorInfo(code="peer_gone", message="it left", retry_after=2.0)
WRONG_FIELD = messages.ErrorInfo(code="invalid_request", message="no such token", param="logit_bias")
FACTS = messages.ModelFacts(
    name="a/b-é",
    digest="0123456789abcdef" * 4,
    family="llama",
    blocks=32,
    hidden_size=4096,
    parameters=8_030_261_248,
    context=131_072,
)
USAGE = Usage(5, 2, 7)
CACHED_USAGE = Usage(50, 2, 52, PromptDetails(cached_tokens=48))
TIMING = Timing(first_token=0.25, total=1.5, route=[HopTiming("Ada's desk", 0, 16)])
TOLD_TIMING = Timing(
    first_token=0.25,
    total=1.5,
    route=[HopTiming("Ada's desk", 0, 16, compute=0.0125, queue=0.0005, wire=0.0625, steps=3)],
    prefill=[HopTiming("Ada's desk", 0, 16, compute=0.125, queue=0.0, wire=0.0625, steps=1)],
    head=HeadTiming(compute=0.002, steps=40),
    repairs=1,
)
PAUSED_TIMING = Timing(first_token=0.25, total=1.5, repairs=1, pauses=[Pause(at=0.5, seconds=0.25)])
SAMPLING = Sampling(temperature=0.0, top_k=40, seed=-(2**63))
STOPPING = Stopping(max_tokens=64, stop=["\n\n", "\N{WAVING HAND SIGN}"], stop_token_ids=[0, 2**31 - 1])
HALF = TokenLogprob(text="\N{REPLACEMENT CHARACTER}", raw=b"\xf0\x9f", logprob=-9999.0)
SCORED = ScoredToken(text="é", raw=b"\xc3\xa9", logprob=-0.5, top=[HALF])
WEATHER = Tool(
    name="get_weather",
    description="Tomorrow's",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}},
)
SWARM = SwarmStatus(
    models=[
        ModelStatus(
            id="a/b-é", blocks=32, context=131_072, missing=[MissingBlocks(16, 32)], reason="blocks 16 to 31"
        )
    ],
    volunteers=[
        VolunteerStatus(id=FIRST, name="Ada's desk", state="serving", device="RTX 4090", start=0, end=16)
    ],
)
FROM_PEER: list[messages.FromPeer] = [
    messages.Hello(protocol=1, software="corolla 0.1.0", instance="0f" * 16, name="Ada's desk"),
    messages.Offer(
        device="RTX 4090",
        memory=2**53,
        models=[
            messages.ModelOffer(
                facts=FACTS,
                max_blocks=16,
                can_hold_head=True,
                dtype="bfloat16",
                wanted_start=0,
                wanted_end=16,
            )
        ],
        blocks_per_second=1234.5,
    ),
    messages.Progress(phase="fetching", done=1, total=16),
    messages.Loaded(
        model="a/b-é", start=0, end=16, head=True, dtype="bfloat16", quantization="nf4", kv_bytes=2**30
    ),
    messages.Ready(session=SESSION),
    messages.Heartbeat(sessions=1, queued=2, kv_used=3),
    messages.RouteRequest(
        request="r1", model="a/b-é", session=SESSION, start=0, end=32, exclude=[FIRST, SECOND]
    ),
    messages.Delta(request="r1", text='"\\\n\N{WAVING HAND SIGN}', tokens=2),
    messages.Finished(request="r1", reason="length", usage=USAGE, timing=TIMING),
    messages.Failed(error=ERROR, request="r1"),
    messages.Failed(error=WRONG_FIELD, request="r1"),
    messages.Draining(),
    messages.Heartbeat(sessions=1, paused=True),
    messages.Heartbeat(sessions=1, blocks_per_second=987.5),
    messages.RouteRequest(request="r2", model="a/b-é", session=SESSION, prefer=[SECOND, FIRST]),
    messages.RouteRequest(request="r3", model="a", session=SESSION, exclude=[FIRST], repairs="kv_cache_full"),
    messages.Finished(request="r2", reason="stop", usage=CACHED_USAGE, timing=TIMING),
    messages.Delta(request="r2", text="é", tokens=3, ids=[0, 2**31 - 1]),
    messages.Hello(
        protocol=1,
        software="corolla 0.1.0",
        instance="0f" * 16,
        name="Ada's desk",
        can_move=True,
        moves=True,
    ),
    messages.Moving(),
    messages.Arrived(),
    messages.Hello(
        protocol=1, software="corolla 0.1.0", instance="f0" * 16, name="rose", hears_operators=True
    ),
    messages.Delta(
        request="r3",
        text="",
        tokens=0,
        prompt=messages.PromptPart(
            text="éa", scored=[ScoredToken(text="é", raw=b"\xc3\xa9", logprob=0.0, is_first=True), SCORED]
        ),
    ),
    messages.Delta(request="r3", text="é", tokens=1, ids=[7], scored=[SCORED]),
    messages.Delta(
        request="r4",
        text="",
        tokens=9,
        ids=[],
        call=messages.CallMade(index=1, name="get_weather", arguments='{"city":"Köln"}'),
    ),
    messages.Finished(request="r4", reason="tool_calls", usage=USAGE, timing=TIMING),
    messages.Finished(request="r6", reason="stop", usage=USAGE, timing=TOLD_TIMING),
    messages.Delta(request="r6", text="", tokens=0, ids=[], is_repairing=True),
    messages.Embedded(request="r5", index=1, tokens=3, vector=bytes.fromhex("0000803f00000000")),
]
FROM_RELAY: list[messages.FromRelay] = [
    messages.Welcome(peer=DRIVER, heartbeat_seconds=5.0, models=["a/b-é"], software="corolla 0.1.0"),
    messages.Assignment(model="a/b-é", start=16, end=32, head=False),
    messages.Probe(session=SESSION, route=ROUTE),
    messages.Serving(),
    messages.Heartbeat(),
    messages.RouteGrant(
        request="r1",
        route=ROUTE,
        hops=[messages.GrantedHop(peer=FIRST, name="Ada's desk", start=0, end=16)],
        expires=2**32 - 1,
    ),
    messages.Refused(request="r1", error=ERROR),
    messages.Generate(
        request="r1",
        body=messages.GenerationRequest(
            model="a/b-é", messages=[Message("user", "hé")], sampling=SAMPLING, stopping=STOPPING
        ),
    ),
    messages.Cancel(request="r1"),
    messages.HopLost(session=SESSION, peer=FIRST),
    messages.Goodbye(error=ERROR),
    messages.Generate(
        request="r2", body=messages.GenerationRequest(model="a/b-é", prompt=[1, 2]), asker="0123456789abcdef"
    ),
    messages.Generate(
        request="r3", body=messages.GenerationRequest(model="a/b-é", prompt=[1, 2]), generated=[3, 5, 8]
    ),
    messages.Welcome(peer=DRIVER, heartbeat_seconds=5.0, models=[], software="corolla 0.1.0", moves=True),
    messages.GoElsewhere(within_seconds=2.5),
    messages.Quarantined(reason="Its replies are nonsense; wait for é"),
    messages.Restored(reason="mended"),
    messages.Generate(
        request="r4",
        body=messages.GenerationRequest(
            model="a/b-é",
            messages=[
                Message("user", "?"),
                Message("assistant", "", tool_calls=[ToolCall("c1", "get_weather", '{"city":"Köln"}')]),
                Message("tool", "12 °C", tool_call_id="c1", name="get_weather"),
            ],
            sampling=Sampling(temperature=0.0, logit_bias={0: -100.0, 2**31 - 1: 0.5}),
            stopping=Stopping(max_tokens=0),
            logprobs=20,
            echo=True,
            tools=Tools(functions=[WEATHER, Tool(name="now")], must_call=True, is_parallel=False),
        ),
    ),
    messages.Generate(
        request="r5",
        body=messages.GenerationRequest(
            model="a/b-é", prompt="é", format=JsonFormat(schema={"type": "array", "items": {}}), logprobs=0
        ),
    ),
    messages.Generate(
        request="r6", body=messages.GenerationRequest(model="a/b-é", prompt="é", format=JsonFormat())
    ),
    messages.Embed(request="r7", model="a/b-é", inputs=["hé", [0, 2**31 - 1]]),
]
FROM_PAGE: list[browser.FromPage] = [
    browser.Chat(
        id="1", model="a/b-é", messages=[Message("system", "s")], sampling=SAMPLING, stopping=STOPPING
    ),
    browser.Stop(id="1"),
    browser.Resume(id="0123456789abcdef01234567", received=7),
]
TO_PAGE: list[browser.ToPage] = [
    browser.PageWelcome(software="corolla 0.1.0", swarm=SWARM),
    browser.PageWelcome(software="corolla 0.1.0", swarm=SWARM, heartbeat_seconds=10.0),
    browser.PageHeartbeat(),
    browser.SwarmChanged(swarm=SWARM),
    browser.ReplyDelta(id="1", text="hé"),
    browser.ReplyDone(id="1", reason="stop", usage=USAGE, timing=TIMING),
    browser.PageError(error=ERROR, id="1"),
    browser.GoElsewhere(within_seconds=2.5),
    browser.ReplyRepairing(id="1"),
    browser.ReplyDone(id="1", reason="stop", usage=USAGE, timing=PAUSED_TIMING),
]
SHORT = {
    "peer": ['{"type":"heartbeat"}', ' { "new field" : [ 1, {} ] , "type" : "draining" } '],
    "relay": ['{"error":{"message":"bye","code":"a_code_nobody_knows"},"type":"goodbye"}'],
    "page": ['{"type":"chat","id":"1","model":"m","messages":[{"role":"user","content":""}]}'],
    "failure": ['{"hop":0,"code":"step_failed","message":""}'],
}
BAD_TEXTS = [
    "",
    "{}",
    "[]",
    '{"type":"nobody_knows"}',
    '{"type":"hello"}',
    '{"type":"welcome"}',
    '{"type":"heartbeat","sessions":-1}',
    '{"type":"progress","phase":"resting","done":0,"total":0}',
    '{"type":"ready","session":"00112233445566778899AABBCCDDEEFF"}',
    '{"type":"ready","session":"00112233445566778899aabbccddeeff\\n"}',
    '{"type":"draining"',
]


def control() -> dict[str, Any]:
    decoders: dict[str, Callable[[str], Any]] = {
        "peer": messages.decode_from_peer,
        "relay": messages.decode_from_relay,
        "page": browser.decode_from_page,
        "failure": lambda text: messages.decode_failure(text.encode()),
    }
    texts: list[tuple[str, str, Any]] = [
        *(("peer", messages.encode_message(message), message) for message in FROM_PEER),
        *(("relay", messages.encode_message(message), message) for message in FROM_RELAY),
        *(("page", json_text(message), message) for message in FROM_PAGE),
        *(("to page", browser.encode_to_page(message), message) for message in TO_PAGE),
        ("failure", messages.encode_failure(FAILURE).decode(), FAILURE),
    ]
    valid = [
        {"name": name_of(side, message), "from": side, "text": text, "meaning": meaning_of(message)}
        for side, text, message in texts
    ]
    short = [
        {"from": side, "text": text, "meaning": meaning_of(decoders[side](text))}
        for side, list_ in SHORT.items()
        for text in list_
    ]
    for text in BAD_TEXTS:
        with suppress(MalformedMessage):
            raise SystemExit(f"not refused: {decoders['peer'](text)}")
    return {
        "valid": valid,
        "short": short,
        "refused": [{"from": "peer", "text": text, "error": MalformedMessage.code} for text in BAD_TEXTS],
    }


def meaning_of(message: Any) -> Any:
    return msgspec.to_builtins(message, str_keys=True)


def json_text(message: Any) -> str:
    return json.dumps(meaning_of(message), ensure_ascii=False, separators=(",", ":"))


def name_of(side: str, message: Any) -> str:
    return f"{side}: {message.__struct_config__.tag or 'failure'}"
