"""`/api/join`: what a new volunteer's owner needs. The handler is relay/joining_guide.py."""

from relay.openapi import Answer, Operation
from schema.join import JoinGuide

JOINING: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path="/api/join",
        tag="Sign-in of pages",
        summary="What a machine that is to join needs beside a token",
        access="everyone",
        answers=(Answer(meaning="Where the relay is, and what to install.", shape=JoinGuide),),
    ),
)
