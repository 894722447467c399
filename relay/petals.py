"""Replies in the way in which Petals' chat server tells them: text in, text out, limits over both together.

    max_new_tokens -> one reply
    max_length     -> a reply of no token, which tells how long the inputs are; then the one that is wanted

The relay has no tokenizer, so only a head can say how many tokens a text has. Does not know HTTP
or WebSockets.
"""

from collections.abc import AsyncIterator

from relay.choices import Choices
from relay.reply import ReplyEvent
from relay.services import Services
from schema.errors import ContextTooLong, InvalidRequest, NotFound
from schema.generation import GenerationRequest, Sampling, Stopping
from schema.messages import Delta, Finished
from schema.petals import PetalsRequest


def model_of(services: Services, name: str | None) -> str:
    """The model that is meant. Raises NotFound: there is none at all."""
    if name is not None:
        return name
    if not services.swarm.priority:
        raise NotFound("this swarm serves no model")
    return services.swarm.priority[0]


async def tokens_allowed(services: Services, asker: str, asked: PetalsRequest, model: str, text: str) -> int:
    """How many tokens may be generated after a text.

    Raises:
        InvalidRequest: no limit is given. ContextTooLong: the text alone is longer than it.
        CorollaError: what became of the reply that was to tell how long the text is.
    """
    if asked.max_new_tokens is not None:
        return asked.max_new_tokens
    if asked.max_length is None:
        raise InvalidRequest("give 'max_new_tokens' or 'max_length'", param="max_new_tokens")
    request = GenerationRequest(
        model=model, prompt=text, sampling=Sampling(temperature=0.0), stopping=Stopping(max_tokens=0)
    )
    length = 0
    async with Choices(services, [request], asker) as choices:
        async for event in events_of(choices):
            if isinstance(event, Finished):
                length = event.usage.prompt_tokens
    if length >= asked.max_length:
        raise ContextTooLong(
            f"the inputs have {length} tokens, so that nothing is left of 'max_length' {asked.max_length}",
            param="max_length",
        )
    return asked.max_length - length


def start(
    services: Services, asker: str, asked: PetalsRequest, model: str, text: str, tokens: int
) -> Choices:
    """Have a head go on with a text, inside of the answer's `async with`."""
    stop = [] if asked.stop_sequence is None else [asked.stop_sequence]
    request = GenerationRequest(
        model=model, prompt=text, sampling=asked.sampling(), stopping=Stopping(max_tokens=tokens, stop=stop)
    )
    return Choices(services, [request], asker)


async def whole_text(choices: Choices) -> str:
    """All that a reply says. Raises CorollaError when it is not finished."""
    return "".join([event.text async for event in events_of(choices) if isinstance(event, Delta)])


async def events_of(choices: Choices) -> AsyncIterator[ReplyEvent]:
    """Of the only reply. Errors as `Choices.events`."""
    async for _, event in choices.events():
        yield event
