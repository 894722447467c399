"""`python -m relay token create|list|revoke`: who may join, who may chat, and who may operate."""

import argparse
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

from sqlalchemy import make_url

from relay.commands.base import columns, explain, run_with_store, when
from relay.settings import Settings, read_public_url
from schema.credentials import TokenKind
from schema.errors import InvalidRequest

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="action", required=True)
    create = actions.add_parser("create", help="make a token and print it", description="Make a token.")
    create.add_argument(
        "--kind", default="volunteer", choices=get_args(TokenKind), help="what it is for (default: volunteer)"
    )
    create.add_argument("--name", default="unnamed", help="whose it is; only the operator sees it")
    create.add_argument("--relay-url", help="address that the token carries (default: PUBLIC_URL)")
    create.set_defaults(run=_create)
    show = actions.add_parser("list", help="show all tokens", description="Show all tokens, without secrets.")
    show.set_defaults(run=_list)
    revoke = actions.add_parser("revoke", help="refuse a token from now on", description="Revoke a token.")
    revoke.add_argument("id", help="as `token list` shows it")
    revoke.set_defaults(run=_revoke)


def _create(settings: Settings, arguments: argparse.Namespace) -> int:
    relay_url = settings.public_url
    if arguments.relay_url is not None:
        try:
            relay_url = read_public_url(arguments.relay_url)
        except ValueError as error:
            raise InvalidRequest(f"--relay-url is {arguments.relay_url!r}: {error}") from error
    kind: TokenKind = arguments.kind
    token = run_with_store(settings, lambda store: store.create_token(kind, arguments.name, relay_url))
    explain(f"Token {token.id} for {relay_url}, in {database_name(settings)}. It is shown only now: keep it.")
    if kind == "admin":
        explain("Whoever has it sees and revokes all tokens, and keeps volunteers out: sign in at the page.")
    if kind == "volunteer":
        explain("To join: python -m volunteer --token …")
        if urlsplit(relay_url).hostname in LOOPBACK:
            explain(
                "That address works on this machine alone. For others set PUBLIC_URL, as for the relay, "
                "or give --relay-url."
            )
    print(token)
    return 0


def database_name(settings: Settings) -> str:
    """Which database was used, so that a token made for another one is noticed. Without its password."""
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        return str(Path(url.database).resolve())
    return url.render_as_string(hide_password=True)


def _list(settings: Settings, arguments: argparse.Namespace) -> int:
    tokens = run_with_store(settings, lambda store: store.list_tokens())
    rows = [
        (
            one.id,
            one.kind,
            one.name,
            one.parent or "-",
            when(one.created_at),
            when(one.last_used_at),
            when(one.expires_at),
            when(one.revoked_at),
        )
        for one in tokens
    ]
    print(columns(("ID", "KIND", "NAME", "MADE BY", "CREATED", "LAST USED", "EXPIRES", "REVOKED"), rows))
    return 0


def _revoke(settings: Settings, arguments: argparse.Namespace) -> int:
    token = run_with_store(settings, lambda store: store.revoke_token(arguments.id))
    explain(
        f"Token {token.id} ({token.kind}, {token.name}) is revoked, with those that it has made; the relay "
        "closes their connections soon."
    )
    return 0
