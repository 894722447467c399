"""`/api/join`: what a new volunteer's owner needs, and what is wrong. Handlers: relay/joining_guide.py."""

from relay.openapi import Answer, Operation
from schema.join import JoinGuide, LastRefusal

JOINING: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path="/api/join",
        tag="Sign-in of pages",
        summary="What a machine that is to join needs beside a token",
        access="everyone",
        answers=(Answer(meaning="Where the relay is, and what to install.", shape=JoinGuide),),
    ),
    Operation(
        method="GET",
        path="/api/join/refusal",
        tag="Sign-in of pages",
        summary="Why a machine with this token could not join",
        description="The last time, within ten minutes. Whoever has the token may ask; that is no use of it.",
        access="volunteer",
        answers=(Answer(meaning="The refusal, if there is one.", shape=LastRefusal),),
    ),
)
