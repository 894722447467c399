"""How a command ends: exit codes, and the errors that lead to them.

Knows nothing of how errors come about or are shown.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What scripts may rely on."""

    DONE = 0
    FAILED = 1
    """The relay refused or failed, or this machine did; standard error says why and what to do."""
    USAGE = 2
    """Wrong arguments, environment or configuration: nothing was sent."""
    UNREACHABLE = 3
    """No answer from the relay, or one that broke off."""
    NOT_SERVED = 4
    """Not now: HTTP 503. Trying again later makes sense."""
    INTERRUPTED = 130
    """Ctrl-C: 128 and SIGINT's number, as shells count."""
    NOBODY_READS = 141
    """Standard output was closed, as `head` does: 128 and SIGPIPE's number."""


class CommandError(Exception):
    """Why a command cannot go on; `message` says the cause and the remedy."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.can_be_repeated = False
        """Whether asking once more may help, and cannot do harm."""
        self.retry_after: float | None = None
        """Seconds after which the relay wants to be asked again, where it says so."""


class WrongUsage(CommandError):
    """Arguments, environment variables, files or configuration that cannot be used."""

    exit_code = ExitCode.USAGE


class Interrupted(CommandError):
    """Ctrl-C, where there is something to say of it."""

    exit_code = ExitCode.INTERRUPTED


class Unreachable(CommandError):
    """Nobody answers at the relay's address, or an answer broke off in its middle."""

    exit_code = ExitCode.UNREACHABLE


class Refused(CommandError):
    """The relay has answered with an error."""

    def __init__(self, message: str, status: int, code: str | None = None) -> None:
        """`status`: of HTTP. `code`: the error's name in schema/errors.py."""
        super().__init__(message)
        self.code = code
        self.status = status
        self.exit_code = ExitCode.NOT_SERVED if status == 503 else ExitCode.FAILED
