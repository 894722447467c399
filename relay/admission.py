"""Who may have a reply made now, who waits, and who is told to come back later.

A head makes so many replies of this replica at once; what comes beyond waits here, in the order in which
it came, and is let in as replies end and heads come. Nobody waits for the lines of jobs: they stand behind
all people, take none of their places to wait in, and do not count as their owner's.
`decide` is pure: figures in, a verdict out.
Owned by the event loop's thread. Does not know what a reply is, nor which head makes it.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType

from schema.errors import InvalidRequest, Overloaded, TooManyRequests

FIRST_GUESS_SECONDS = 5.0
"""How long a reply takes, before any has ended."""
WEIGHT = 0.1
"""Of the newest reply in that estimate."""
LINE_SECONDS = 300.0
"""After which a line is tried again whose token has no tokens left today: it may have been given more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator has set."""

    per_head: int
    """Replies that one head makes at once."""
    waiting: int
    """Replies that wait, of all models."""
    per_asker: int
    """Replies of one token that are made or wait."""
    wait_seconds: float
    """How long one waits at most."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one asker may, beside what everybody may (relay/allowances.py)."""

    owner: str = ""
    """Whose replies count together with this asker's; empty: nobody else's do."""
    replies: int | None = None
    """Of this asker's that are made or wait at once; None: any number."""
    owners_replies: int | None = None
    """The same of all that count together."""
    tokens_left: int | None = None
    """Of today's; None: any number."""
    seconds: float = 0.0
    """Until there are more of them."""

    @property
    def is_limited(self) -> bool:
        return any(limit is not None for limit in (self.replies, self.owners_replies, self.tokens_left))


UNLIMITED = Allowance()


@dataclass(frozen=True, slots=True)
class Standing:
    """How things are when somebody asks for replies of a model."""

    capacity: int
    """Replies of the model that all heads make at once."""
    running: int
    """Of the model."""
    ahead: int
    """Replies of the model that wait already."""
    waiting: int
    """Of all models."""
    asked: int
    """Replies of the same owner that are made or wait."""
    seconds: float
    """How long a reply takes."""
    asked_by_key: int = 0
    """Of the same asker."""
    allowance: Allowance = UNLIMITED


@dataclass(frozen=True, slots=True)
class Verdict:
    """What comes of asking."""

    position: int
    """Among those who wait, from 1; 0: need not wait."""
    seconds: float
    """How long that will take, as far as can be told."""


def decide(limits: Limits, now: Standing, count: int) -> Verdict:
    """Whether `count` replies may be asked for, and how long the first of them waits.

    Raises:
        InvalidRequest: one token may never have so many. TooManyRequests: it has too many now, or has used
        what it may use today. Overloaded: there is no room to wait.
    """
    allowed = now.allowance
    owners = min(limits.per_asker, allowed.owners_replies or limits.per_asker)
    most = min(owners, allowed.replies or owners)
    if count > most:
        raise InvalidRequest(f"a token may have {most} replies at once, not {count}", param="n")
    if allowed.tokens_left is not None and allowed.tokens_left <= 0:
        used = "this token has used the tokens that it may use today, in UTC: come back tomorrow"
        raise TooManyRequests(used, retry_after=max(1.0, allowed.seconds))
    room = max(0, now.capacity - now.running) if not now.ahead else 0
    position = 0 if room else now.ahead + 1
    verdict = Verdict(position, wait_for(position, now))
    if now.asked + count > owners or (allowed.replies and now.asked_by_key + count > allowed.replies):
        waits = now.asked if now.asked + count > owners else now.asked_by_key
        many = f"this token waits for {waits} replies: it may have {most} at once"
        raise TooManyRequests(many, retry_after=max(1.0, now.seconds), position=position)
    if now.waiting + max(0, count - room) > limits.waiting:
        later = wait_for(now.ahead + count, now)
        full = f"all heads are busy, and {now.waiting} replies wait already: come back later"
        raise Overloaded(full, retry_after=max(1.0, later), position=position)
    return verdict


def wait_for(position: int, now: Standing) -> float:
    """Seconds until whoever waits at a position is let in: replies end evenly spread."""
    return position * now.seconds / max(1, now.capacity)


class Place:
    """The right to have one reply made: entered with `async with`, which waits for it."""

    def __init__(
        self,
        admission: "Admission",
        model: str,
        asker: str,
        verdict: Verdict,
        *,
        owner: str = "",
        is_line: bool = False,
    ) -> None:
        self.model = model
        self.is_line = is_line
        self.asker = asker
        self.owner = owner or asker
        self.verdict = verdict
        """As it was when it was asked for."""
        self.since: float | None = None
        """Loop time since which the reply may be made."""
        self.is_let_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._admission = admission

    async def __aenter__(self) -> None:
        """Raises Overloaded when its turn does not come in time."""
        if self.since is None:
            await self._admission.wait(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.leave(self)


class Admission:
    """All places of this replica."""

    def __init__(self, limits: Limits, heads: Callable[[str], int]) -> None:
        """`heads`: how many there are of a model now."""
        self.waited = 0
        """Replies of people that have had to wait."""
        self._limits = limits
        self._heads = heads
        self._places: set[Place] = set()
        self._running: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        """By owner."""
        self._asked_by_key: Counter[str] = Counter()
        self._people: Counter[str] = Counter()
        self._queues: dict[str, deque[Place]] = {}
        self._lines: dict[str, deque[Place]] = {}
        """Of jobs."""
        self._seconds: dict[str, float] = {}

    @property
    def waiting(self) -> int:
        """Replies of people that wait now."""
        return sum(map(len, self._queues.values()))

    @property
    def behind(self) -> "Admission":
        """The same places, for the lines of jobs."""
        return _Behind(self)

    def people(self) -> Mapping[str, int]:
        """How many replies people have made or wait for, by model."""
        return dict(self._people)

    def enter(self, model: str, asker: str, count: int = 1, allowance: Allowance = UNLIMITED) -> list[Place]:
        """Places for so many replies; each has to be left, whatever becomes of it. Errors as `decide`."""
        owner = allowance.owner or asker
        verdict = decide(self._limits, self._standing(model, asker, owner, allowance), count)
        places = [Place(self, model, asker, verdict, owner=owner) for _ in range(count)]
        self._asked[owner] += count
        self._asked_by_key[asker] += count
        self._people[model] += count
        self._begin(self._queues, places)
        self.waited += sum(place.since is None for place in places)
        return places

    def enter_line(self, model: str, asker: str, count: int, allowance: Allowance) -> list[Place]:
        """Places for the replies of a line.

        Raises:
            InvalidRequest: nobody may have so many at once. TooManyRequests: no tokens are left for today.
        """
        seconds = min(allowance.seconds, LINE_SECONDS)
        tokens = replace(UNLIMITED, tokens_left=allowance.tokens_left, seconds=seconds)
        standing = replace(self._standing(model, asker, asker, tokens), ahead=0, waiting=0, asked=0)
        verdict = decide(replace(self._limits, waiting=count), standing, count)
        places = [Place(self, model, asker, verdict, is_line=True) for _ in range(count)]
        self._begin(self._lines, places)
        return places

    def _begin(self, queues: dict[str, deque[Place]], places: list[Place]) -> None:
        self._places.update(places)
        for place in places:
            queues.setdefault(place.model, deque()).append(place)
        for model in {place.model for place in places}:
            self._let_in(model)

    def leave(self, place: Place) -> None:
        """Give a place back, also one that was only waited for; again does no harm."""
        if place not in self._places:
            return
        self._places.discard(place)
        if not place.is_line:
            _count_down(self._asked, place.owner)
            _count_down(self._asked_by_key, place.asker)
            _count_down(self._people, place.model)
        if place.since is None:
            queues = self._lines if place.is_line else self._queues
            queues[place.model].remove(place)
            if not queues[place.model]:
                del queues[place.model]
            return
        self._running[place.model] -= 1
        took = asyncio.get_running_loop().time() - place.since
        usual = self._seconds.get(place.model)
        self._seconds[place.model] = took if usual is None else usual + (took - usual) * WEIGHT
        self._let_in(place.model)

    async def wait(self, place: Place) -> None:
        """Until it is a place's turn. Errors as `Place.__aenter__`."""
        seconds = self._limits.wait_seconds
        try:
            async with asyncio.timeout(seconds):
                await place.is_let_in
        except TimeoutError:
            now = self._standing(place.model, place.asker, place.owner)
            late = f"no head had room for this reply within {seconds:g} s: come back later"
            retry_after = math.ceil(max(1.0, wait_for(now.ahead, now)))
            raise Overloaded(late, retry_after=retry_after, position=place.verdict.position) from None

    def let_in(self) -> None:
        """Let in whoever has room now: heads may have come."""
        for model in self._queues.keys() | self._lines.keys():
            self._let_in(model)

    def _let_in(self, model: str) -> None:
        for queues in (self._queues, self._lines):  # lines when nobody else waits
            queue = queues.get(model)
            capacity = self._capacity(model) if queue else 0
            while queue and self._running[model] < capacity:
                place = queue.popleft()
                self._running[model] += 1
                place.since = asyncio.get_running_loop().time()
                if not place.is_let_in.done():
                    place.is_let_in.set_result(None)
            if not queue:
                queues.pop(model, None)

    def _capacity(self, model: str) -> int:
        return self._heads(model) * self._limits.per_head

    def _standing(self, model: str, asker: str, owner: str, allowance: Allowance = UNLIMITED) -> Standing:
        return Standing(
            capacity=self._capacity(model),
            running=self._running[model],
            ahead=len(self._queues.get(model, ())),
            waiting=self.waiting,
            asked=self._asked[owner],
            seconds=self._seconds.get(model, FIRST_GUESS_SECONDS),
            asked_by_key=self._asked_by_key[asker],
            allowance=allowance,
        )


class _Behind(Admission):
    """An admission as lines see it: they enter behind all people."""

    def __init__(self, front: Admission) -> None:
        self._front = front

    def enter(self, model: str, asker: str, count: int = 1, allowance: Allowance = UNLIMITED) -> list[Place]:
        return self._front.enter_line(model, asker, count, allowance)

    def leave(self, place: Place) -> None:
        self._front.leave(place)


def _count_down(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
