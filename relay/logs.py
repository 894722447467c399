"""Logs: one line an event, as JSON for machines or as text for people.

A line's context travels in `extra`: `log.info("joined", extra={"peer": peer.id})`. Fields that
`CONTEXT` does not name are not printed, so that nobody logs a secret by accident.
Does not know who logs. `configure_logs` is called by the command that runs the server, and by nothing else.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

from relay.settings import LogFormat, Settings

CONTEXT = ("replica", "peer", "role", "session", "step", "request", "reason", "by")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NOISY = {"aiosqlite": logging.INFO, "alembic": logging.WARNING}
"""Libraries whose less important lines are of no use at any level."""


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, context, and the traceback as `error`."""

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._replica = replica

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "replica": self._replica,
            **_context(record),
        }
        trace = _trace(self, record)
        if trace:
            entry["error"] = trace
        try:
            return orjson.dumps(entry, default=_plain).decode()
        except orjson.JSONEncodeError:  # half a surrogate pair, or a number beyond 64 bits
            return json.dumps(entry, default=_plain)


class TextFormatter(logging.Formatter):
    """`time level logger: message  key=value …`, then the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        context = "".join(f"  {key}={_plain(value)}" for key, value in _context(record).items())
        # What a peer sends may end up here: it must not begin a line of its own, nor steer a terminal.
        said = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], record.getMessage() + context)
        line = f"{_time(record):%H:%M:%S.%f} {record.levelname:<7} {record.name}: {said}"
        trace = _trace(self, record)
        return f"{line}\n{trace}" if trace else line


def configure_logs(settings: Settings, stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (standard error) in the format of the settings."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_formatter(settings.log_format, settings.replica))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name, least in _NOISY.items():
        logging.getLogger(name).setLevel(max(least, root.level))


def _formatter(chosen: LogFormat, replica: str) -> logging.Formatter:
    return JSONFormatter(replica) if chosen == "json" else TextFormatter()


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _context(record: logging.LogRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in CONTEXT if hasattr(record, name)}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
