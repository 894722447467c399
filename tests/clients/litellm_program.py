"""What litellm does with a relay; prints what came of it as JSON. Environment: URL, TOKEN, MODEL."""

import asyncio
import json
import os
from typing import Any

import litellm as untyped

litellm: Any = untyped
"""Its types say less than it does."""
ASKED: dict[str, Any] = {
    "model": f"openai/{os.environ['MODEL']}",
    "api_base": f"{os.environ['URL']}/v1",
    "api_key": os.environ["TOKEN"],
    "messages": [{"role": "user", "content": "Tell me a short story about a fox."}],
    "temperature": 0,
    "max_tokens": 24,
}


async def at_once() -> list[str]:
    replies = await asyncio.gather(*(litellm.acompletion(**ASKED) for _ in range(4)))
    return [reply.choices[0].message.content for reply in replies]


def main() -> None:
    whole = litellm.completion(**ASKED)
    pieces = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(**ASKED, stream=True)]
    vectors = litellm.embedding(
        model=ASKED["model"], api_base=ASKED["api_base"], api_key=ASKED["api_key"], input=["a fox"]
    )
    try:
        litellm.completion(**ASKED | {"model": "openai/nothing"})
    except litellm.NotFoundError:
        refusal = "not found"
    else:
        refusal = "none"
    said = {
        "whole": whole.choices[0].message.content,
        "usage": whole.usage.completion_tokens,
        "streamed": "".join(pieces),
        "at once": asyncio.run(at_once()),
        "vector": len(vectors.data[0]["embedding"]),
        "refusal": refusal,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
