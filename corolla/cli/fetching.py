"""Lines of JSON from the relay to a file or to standard output, as they come.

Does not know what the lines say.
"""

import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from corolla.cli.exits import WrongUsage
from corolla.cli.relay import Relay
from corolla.cli.terminal import Console, json_line, visible


def fetch(relay: Relay, paths: Sequence[str], output: str | None, console: Console) -> int:
    """Write what the relay has at these paths, one after the other; how many lines that were.

    `output`: a file, there only when everything is in it, or something else that can be written to, such as a
    pipe; None: standard output. Raises CommandError.
    """
    if output is not None:
        with _written(Path(output)) as write:
            return sum(_copy(relay, path, write) for path in paths)
    if console.out_is_terminal:
        return sum(_show(relay, path, console) for path in paths)
    return sum(_copy(relay, path, console.raw) for path in paths)


def _copy(relay: Relay, path: str, write: Callable[[bytes], object]) -> int:
    """Bytes as they are; but the last line of one file and the first of the next stay two."""
    lines, last = 0, b"\n"
    with relay.answer("GET", path) as response:
        for part in response.iter_bytes():
            write(part)
            lines += part.count(b"\n")
            last = part[-1:] or last
    if last != b"\n":
        write(b"\n")
        lines += 1
    return lines


def _show(relay: Relay, path: str, console: Console) -> int:
    lines = 0
    with relay.answer("GET", path) as response:
        for line in _lines(response.iter_bytes()):
            console.line(_harmless(line))
            lines += 1
    return lines


def _harmless(line: bytes) -> str:
    with suppress(ValueError):
        return json_line(line)
    return visible(line.decode(errors="replace"))


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        yield from lines
    if rest:
        yield rest


@contextmanager
def _written(file: Path) -> Iterator[Callable[[bytes], object]]:
    """What writes into a new file, which takes the place of `file` at the end. Raises WrongUsage.

    A link stays, and what it leads to is replaced. What is no regular file is written to as it is.
    """
    try:
        mode = _mode_of(file)
        if not stat.S_ISREG(mode):
            with file.open("wb") as opened:
                yield opened.write
            return
        target = Path(os.path.realpath(file))
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    except OSError as error:
        raise WrongUsage(f"{file} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as opened:
            yield opened.write
        os.chmod(name, stat.S_IMODE(mode))
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _mode_of(file: Path) -> int:
    """What it is, and who may use it; of a file that is not there yet, that of files like any other."""
    try:
        return file.stat().st_mode
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return stat.S_IFREG | (0o666 & ~mask)
