"""Writes the text that the demonstration model learns from: seeded, without any outside text."""

from .conversation import Conversation, conversations, converse
from .plain_text import plain_text
from .split import FIRST_MESSAGES, is_wording_held_out, normalised

__all__ = [
    "FIRST_MESSAGES",
    "Conversation",
    "conversations",
    "converse",
    "is_wording_held_out",
    "normalised",
    "plain_text",
]
