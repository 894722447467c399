"""relay/queries/tokens.py: tokens that tokens have made, and races between them."""

import asyncio
import time

import pytest

from relay.records import Page, TokenLimits
from relay.store import Store
from schema.credentials import Credential
from schema.errors import InvalidRequest, NotFound, QuotaExceeded, Unauthorized

URL = "https://relay.example"


@pytest.fixture
async def owner(store: Store) -> Credential:
    return await store.create_token("client", "Ada", URL)


async def key(store: Store, owner: Credential, most: int | None = None, **limits: float) -> Credential:
    given = TokenLimits(**limits)  # pyright: ignore[reportArgumentType]
    return await store.create_token("client", "key", URL, given, parent=owner.id, most=most)


async def test_limits_are_found_again(store: Store, owner: Credential) -> None:
    made = await key(store, owner, replies_at_once=3, tokens_a_day=2**53, expires_at=time.time() + 100)
    found, parent = await store.token_and_parent(made.id)
    assert (found.replies_at_once, found.tokens_a_day, found.parent) == (3, 2**53, owner.id)
    assert parent == await store.token(owner.id)
    assert await store.token_and_parent(owner.id) == [parent]
    assert await store.token_and_parent("0" * 12) == []
    assert (await store.authenticate(str(made))).parent == owner.id


async def test_of_those_that_are_made_at_once_no_more_are_made_than_may_be(
    store: Store, owner: Credential
) -> None:
    made = await asyncio.gather(*(key(store, owner, most=3) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(one, Credential) for one in made) == 3
    assert sum(isinstance(one, QuotaExceeded) for one in made) == 5


async def test_none_is_left_behind_by_a_token_that_is_revoked_meanwhile(
    store: Store, owner: Credential
) -> None:
    await asyncio.gather(
        *(key(store, owner) for _ in range(4)), store.revoke_token(owner.id), return_exceptions=True
    )
    good = await store.tokens(Page(10), parent=owner.id, good_at=time.time())
    assert good == []
    with pytest.raises(Unauthorized):
        await key(store, owner)


async def test_a_family_is_a_token_with_all_that_it_has_made_and_that_count_still(
    store: Store, owner: Credential
) -> None:
    keys = [await key(store, owner) for _ in range(2)]
    await store.revoke_token(keys[0].id)
    now = time.time()
    assert set(await store.family_of(owner.id, now - 10)) == {owner.id, *(one.id for one in keys)}
    assert set(await store.family_of(owner.id, now + 10)) == {owner.id, keys[1].id}


async def test_pages_go_on_where_the_last_one_ended(store: Store, owner: Credential) -> None:
    ids = [(await key(store, owner)).id for _ in range(3)][::-1]
    first = await store.tokens(Page(2), parent=owner.id)
    assert [one.id for one in first] == ids, "one more than asked for says that there are more"
    assert [one.id for one in await store.tokens(Page(2, first[1].id), parent=owner.id)] == ids[2:]
    for nobody in ("0" * 12, "nul\0"):
        with pytest.raises(NotFound):
            await store.tokens(Page(2, nobody), parent=owner.id)


async def test_what_cannot_be_a_name_or_an_end_changes_nothing(store: Store, owner: Credential) -> None:
    made = await key(store, owner)
    before = await store.token(made.id)
    for changes in ({"name": "\0"}, {"name": "  "}):
        with pytest.raises(InvalidRequest):
            await store.change_token(made.id, changes)
    with pytest.raises(NotFound):
        await store.change_token(made.id, {"name": "x"}, parent=made.id)
    assert await store.token(made.id) == before


async def test_those_that_have_expired_since_are_found(store: Store, owner: Credential) -> None:
    end = time.time() + 100
    made = await key(store, owner, expires_at=end)
    assert await store.ended_since(0.0, end - 1) == set()
    assert await store.ended_since(end - 1, end + 1) == {made.id}
    assert await store.good_token(made.id, end + 1) is None
