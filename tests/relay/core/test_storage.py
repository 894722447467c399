"""relay/batches/storage.py and s3.py: what is written is read, whole or in part; nothing is half there."""

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import openai
import pytest

from benchmarks.processes import free_port
from relay.batches.storage import PART_BYTES, Folder, Storage, open_storage
from relay.settings import Settings
from schema.errors import NotFound, Unavailable
from tests.relay.core.answering_head import answering
from tests.relay.core.batch_client import contents, ended, lines, submit, texts_of
from tests.relay.core.support import running_relay

START_SECONDS = 60.0
BUCKET = "corolla"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3-compatible server in a process of its own, with one bucket."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    log = tmp_path_factory.mktemp("s3") / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **KEYS})
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                httpx.put(f"{url}/{BUCKET}", trust_env=False).raise_for_status()
                break
            except httpx.TransportError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                time.sleep(0.05)
        yield url
    finally:
        server.kill()
        server.wait()


@pytest.fixture(params=["folder", "s3"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    if request.param == "folder":
        return Settings(files=str(tmp_path / "files"))
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    url: str = request.getfixturevalue("s3_server")
    return Settings(files=f"s3://{BUCKET}/some/where", s3_endpoint=url)


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return open_storage(settings)


async def parts_of(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def read(storage: Storage, key: str, start: int = 0, size: int | None = None) -> bytes:
    return b"".join([part async for part in storage.read(key, start, size)])


async def test_what_is_written_is_read(storage: Storage) -> None:
    content = os.urandom(3 * PART_BYTES + 1)
    written = await storage.write("file-a", parts_of(content[:10], b"", content[10:]))
    assert written == len(content)
    assert await read(storage, "file-a") == content
    for start, size in ((0, 5), (7, 5), (PART_BYTES - 1, 2), (len(content) - 1, 1), (3, 0)):
        assert await read(storage, "file-a", start, size) == content[start : start + size]
    assert await read(storage, "file-a", 9) == content[9:]
    await storage.remove("file-a")
    await storage.remove("file-a")
    with pytest.raises(NotFound):
        await read(storage, "file-a")


async def test_an_empty_file_is_a_file(storage: Storage) -> None:
    assert await storage.write("file-b", parts_of()) == 0
    assert await read(storage, "file-b") == b""


async def test_a_large_file_is_read_as_it_was_written(storage: Storage) -> None:
    content = os.urandom(12 * 1024 * 1024)
    pieces = [content[at : at + 100_000] for at in range(0, len(content), 100_000)]
    assert await storage.write("file-c", parts_of(*pieces)) == len(content)
    assert await read(storage, "file-c") == content


class Broken(Exception):
    pass


async def test_what_breaks_off_is_not_there(storage: Storage) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        raise Broken

    with pytest.raises((Broken, Unavailable)):
        await storage.write("file-d", parts())
    with pytest.raises(NotFound):
        await read(storage, "file-d")


async def test_a_key_leads_nowhere_else(storage: Storage) -> None:
    for key in ("../a", "a/b", "", ".", "a\0"):
        with pytest.raises(ValueError, match="key"):
            await read(storage, key)


async def test_a_storage_that_is_away_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(Unavailable, match="cannot be kept"):
        await Folder(tmp_path / "file").write("file-a", parts_of(b"a"))


async def test_a_batch_is_answered_whatever_its_files_are_in(settings: Settings, sqlite_file: Path) -> None:
    own = {"files": settings.files, "s3_endpoint": settings.s3_endpoint}
    async with running_relay(sqlite_file, **own) as relay:
        token = await relay.token("client")
        async with (
            openai.AsyncOpenAI(base_url=f"{relay.url}/v1", api_key=token, max_retries=0) as assistant,
            answering(await relay.serving(head=True)),
        ):
            done = await ended(assistant, await submit(assistant, lines(40)))
            assert len(texts_of(await contents(assistant, done.output_file_id))) == 40
