"""From the process's arguments to its exit code (corolla/cli/exits.py says what each means)."""

import os
import sys
from collections.abc import Mapping, Sequence

from corolla.cli.exits import CommandError, ExitCode
from corolla.cli.parser import command_line
from corolla.cli.terminal import Console, open_closed_streams


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Run one command; its exit code. Wrong usage raises SystemExit(2), as argparse does."""
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what a locale's characters cannot say is written out
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    parser = command_line()
    chosen = parser.parse_args(arguments)
    console = Console.of_process(chosen.quiet)
    try:
        from corolla.cli.commands import run  # httpx takes longer than all that comes before

        code = run(chosen, console, environment)
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        console.error(
            f"corolla: {error.name} is not installed. Install Corolla with its 'cli' extra: "
            "pip install 'corolla[cli] @ git+REPOSITORY'"
        )
        return ExitCode.FAILED
    except CommandError as error:
        console.error(f"corolla: {error.message}")
        return error.exit_code
    except KeyboardInterrupt:
        console.progress_ends()
        return ExitCode.INTERRUPTED
    except OSError as error:  # of standard output: what is read and sent has errors of its own
        # Python would complain when it flushes at its end: let it flush into nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return ExitCode.NOBODY_READS
        console.error(f"corolla: the output cannot be written: {error.strerror}")
        return ExitCode.FAILED
    return code
