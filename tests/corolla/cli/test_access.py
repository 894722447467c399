"""Which relay is asked, and with which token."""

from pathlib import Path

import pytest

from corolla.cli.access import Access, base_url, find_access
from corolla.cli.exits import WrongUsage
from schema.credentials import new_credential

HOME, OTHER, THIRD = "https://home.example", "https://other.example", "https://third.example"
TOKEN, OTHERS, WITHOUT = (str(new_credential("client", url)) for url in (HOME, OTHER, ""))


@pytest.fixture
def told() -> list[str]:
    return []


def configure(folder: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    """An environment in which the configuration says this."""
    file = folder / "corolla" / "config.toml"
    file.parent.mkdir()
    file.write_text(text)
    file.chmod(mode)
    return {"XDG_CONFIG_HOME": str(folder)}


@pytest.mark.parametrize(
    ("option", "variables", "configured", "expected"),
    [
        ((None, TOKEN), {}, "", (HOME, TOKEN)),
        ((None, None), {"COROLLA_API_KEY": f" {TOKEN}\n"}, "", (HOME, TOKEN)),
        ((None, None), {}, f'token = "{TOKEN}"', (HOME, TOKEN)),
        ((OTHER, TOKEN), {}, "", (OTHER, TOKEN)),
        ((OTHER, None), {"COROLLA_URL": THIRD, "COROLLA_API_KEY": TOKEN}, "", (OTHER, TOKEN)),
        ((None, None), {"COROLLA_URL": THIRD, "COROLLA_API_KEY": TOKEN}, "", (THIRD, TOKEN)),
        ((None, None), {"COROLLA_URL": THIRD}, f'token = "{TOKEN}"\nurl = "{OTHER}"', (THIRD, TOKEN)),
        ((None, None), {}, f'token = "{TOKEN}"\nurl = "{OTHER}"', (OTHER, TOKEN)),
        ((None, WITHOUT), {}, f'url = "{OTHER}"', (OTHER, WITHOUT)),
        ((None, None), {"COROLLA_URL": HOME}, "", (HOME, None)),
        # A token goes to its own relay rather than to one that is said less directly.
        ((None, OTHERS), {"COROLLA_URL": HOME, "COROLLA_API_KEY": TOKEN}, "", (OTHER, OTHERS)),
        ((None, None), {"COROLLA_API_KEY": OTHERS}, f'url = "{HOME}"\ntoken = "{TOKEN}"', (OTHER, OTHERS)),
    ],
)
def test_options_go_before_the_environment_and_that_before_the_configuration(
    option: tuple[str | None, str | None],
    variables: dict[str, str],
    configured: str,
    expected: tuple[str, str | None],
    tmp_path: Path,
    told: list[str],
) -> None:
    access = find_access(*option, {**configure(tmp_path, configured), **variables}, told.append)
    assert ((access.url, access.token), told) == (expected, [])


def test_the_configuration_may_name_a_model(tmp_path: Path, told: list[str]) -> None:
    environment = configure(tmp_path, f'url = "{HOME}"\nmodel = "llama"')
    assert find_access(None, None, environment, told.append) == Access(HOME, None, "llama")


def test_the_configuration_is_looked_for_at_home(tmp_path: Path, told: list[str]) -> None:
    folder = tmp_path / ".config"
    folder.mkdir()
    configure(folder, f'url = "{HOME}"')
    assert find_access(None, None, {"HOME": str(tmp_path)}, told.append).url == HOME


def test_a_token_that_others_can_read_is_told_of(tmp_path: Path, told: list[str]) -> None:
    environment = configure(tmp_path, f'token = "{TOKEN}"', mode=0o644)
    assert find_access(None, None, environment, told.append).url == HOME
    assert [("chmod 600" in line, TOKEN in line) for line in told] == [(True, False)]


@pytest.mark.parametrize(
    ("option", "configured", "cause"),
    [
        ((None, None), "", "COROLLA_API_KEY"),
        ((None, WITHOUT), "", "--url"),
        ((None, "sk-1234"), "", "not a Corolla token"),
        ((HOME, TOKEN[:30]), "", "cut short"),
        ((HOME, f"{TOKEN}é"), "", "damaged"),
        ((HOME, TOKEN.replace(".", ".\n", 1)), "", "damaged"),
        ((HOME, str(new_credential("volunteer", HOME))), "", "client's token"),
        (("ftp://relay.example", None), "", "https://relay.example"),
        (("wss://relay.example", None), "", "https://relay.example"),
        (("https://me:secret@relay.example", None), "", "password"),
        ((HOME, None), "tokn = 'x'", "'tokn'"),
        ((HOME, None), "url = 7", "'url'"),
        ((HOME, None), "url =", "config.toml cannot be read"),
    ],
)
def test_what_cannot_be_used_is_refused(
    option: tuple[str | None, str | None], configured: str, cause: str, tmp_path: Path, told: list[str]
) -> None:
    with pytest.raises(WrongUsage, match=cause):
        find_access(*option, configure(tmp_path, configured), told.append)


@pytest.mark.parametrize("text", [HOME, f"{HOME}/", f"{HOME}/v1", f"{HOME}/v1/", f" {HOME}\n"])
def test_an_address_may_be_written_as_for_other_clients(text: str) -> None:
    assert base_url(text) == HOME


def test_tokens_are_not_in_what_is_printed_of_an_access() -> None:
    assert TOKEN not in repr(Access(HOME, TOKEN))
