"""Any bytes are a route or a named error, and only the secret's holder can make one."""

from hypothesis import given
from hypothesis import strategies as st

from schema.errors import CorollaError, RouteForged
from schema.ids import SessionId
from schema.routes import Route, read_route, sign_route, verify_route
from tests.schema.outcomes import peak_bytes, result_or_refusal
from tests.schema.strategies import ROUTES, SECRETS, SESSIONS, mutations

SECRET = b"k" * 32
SESSION = SessionId(b"s" * 16)
SIGNED = ROUTES.map(lambda route: sign_route(route, SESSION, SECRET))
HEADED = st.binary(min_size=52, max_size=200).map(lambda raw: b"\1" + raw)
ANYTHING = st.binary(max_size=200) | HEADED | mutations(SIGNED)


@given(ROUTES, SESSIONS, SECRETS)
def test_round_trip(route: Route, session: SessionId, secret: bytes) -> None:
    assert verify_route(sign_route(route, session, secret), session, secret) == route


@given(ROUTES)
def test_reading_needs_no_secret(route: Route) -> None:
    assert read_route(sign_route(route, SESSION, SECRET)) == route


@given(ANYTHING)
def test_any_bytes_are_a_route_or_are_refused(raw: bytes) -> None:
    route = result_or_refusal(lambda: read_route(raw))
    assert isinstance(route, CorollaError) or len(raw) == 40 + 12 * len(route.hops)


@given(st.binary(max_size=200) | HEADED)
def test_nobody_without_the_secret_makes_a_route(raw: bytes) -> None:
    assert isinstance(result_or_refusal(lambda: verify_route(raw, SESSION, SECRET)), CorollaError)


@given(SIGNED.flatmap(lambda raw: st.tuples(st.just(raw), mutations(st.just(raw)))))
def test_any_change_to_a_route_is_noticed(pair: tuple[bytes, bytes]) -> None:
    raw, changed = pair
    verified = result_or_refusal(lambda: verify_route(changed, SESSION, SECRET))
    assert changed == raw or isinstance(verified, CorollaError)


@given(SIGNED, SESSIONS.filter(lambda session: session != SESSION))
def test_route_belongs_to_one_session(raw: bytes, other: SessionId) -> None:
    assert isinstance(result_or_refusal(lambda: verify_route(raw, other, SECRET)), RouteForged)


@given(SIGNED, SECRETS.filter(lambda secret: secret != SECRET))
def test_route_belongs_to_one_secret(raw: bytes, other: bytes) -> None:
    assert isinstance(result_or_refusal(lambda: verify_route(raw, SESSION, other)), RouteForged)


@given(ROUTES, st.integers(-2, 70))
def test_every_stop_is_a_peer_of_the_route_or_is_refused(route: Route, index: int) -> None:
    peers = {route.origin, *(hop.peer for hop in route.hops)}
    stop = result_or_refusal(lambda: route.stop(index))
    assert isinstance(stop, CorollaError) or stop in peers


@given(st.binary(max_size=100))
def test_declared_hops_allocate_nothing(rest: bytes) -> None:
    assert peak_bytes(lambda: read_route(b"\1\xff" + rest)) < 64 * 1024
