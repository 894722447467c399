"""Errors that only the relay's operator sees, at start or on the command line; they never cross a wire.

Errors that peers, clients and pages see are in schema/errors.py.
"""


class OperatorError(Exception):
    """Something that the operator must change; the message names the cause and the remedy."""


class SettingsError(OperatorError):
    """An environment variable with a value that cannot be used."""


class DatabaseRefused(OperatorError):
    """A database that this relay must not work with as it is: not migrated, or not reachable by its path."""
