"""Placement, moves and routes over simulated volunteers: `python -m benchmarks.simulate [--full]`.

    the same volunteers, coming and going, twice: as this relay places and moves them, and as Petals' rule
    places newcomers. Swarms of 14, 30 and 100, which are mixed: every machine has another room and speed
    one swarm of 10,000 (2,000 without `--full`) for 24 hours (1), over which routes are planned meanwhile
    small swarms, of which the best route and the best placement are found by trying all

Everything but the time that plans take is simulated (benchmarks/simulated_swarm.py says from which published
figures), so all other figures are the same on every machine.
"""

import argparse
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from benchmarks.best_placement import Machine, best_found, best_of_all, best_reached
from benchmarks.report import Bar, Report, Spread
from benchmarks.simulated_swarm import MODEL, Outcome, SimulatedSwarm, petals_rule
from relay.candidates import Candidates
from relay.moves import LastMove, Resident
from relay.placement import choose_span
from relay.planner import gaps_in, plan
from relay.prices import Holder, price_of
from relay.rebalancing import next_move
from relay.throughputs import throughputs
from schema.ids import PeerId, Span

MIXED = (14, 30, 100)
SMALL_BLOCKS, SMALL_VOLUNTEERS = 6, 5
PLANS_A_PASS = 20
SEARCHED_EVERY = 120
"""Passes from one search for the best placement to the next."""
SEARCHES = {14: 60, 30: 40, 100: 10}
"""How many searches, each from another placement; half a second for all."""
SETTLED = 1e9
"""A time at which everybody has been long enough where it is."""
DRIVER = PeerId("d" * 16)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="10,000 volunteers and 24 hours, in some minutes")
    full: bool = parser.parse_args().full
    report = Report("simulate", full)
    small_swarms(report, 300 if full else 60)
    mixed_swarms(report, hours=24 if full else 6, seeds=range(4 if full else 3))
    large_swarm(report, *((10_000, 24) if full else (2_000, 1)))
    report.print_last_line()


def show(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    print(name, ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
    return figures


# ---- swarms of which all can be tried ----------------------------------------------------------


def small_swarms(report: Report, count: int) -> None:
    """How far routes and placements are from the best there are."""
    source = random.Random(1)
    routes: list[float] = []
    placements: list[float] = []
    reached: list[float] = []
    while len(routes) < count:
        holders = [_small_holder(source, number) for number in range(source.randint(1, SMALL_VOLUNTEERS))]
        candidates = Candidates(holders)
        whole = Span(0, SMALL_BLOCKS)
        if not gaps_in(candidates.held(), whole):
            found = plan(candidates, whole, DRIVER).seconds
            routes.append(found / min(_seconds(chain) for chain in _chains(holders, 0)))
        machines = [Machine(len(one.span), one.blocks_per_second) for one in holders]
        best = best_of_all(SMALL_BLOCKS, machines)
        if best:
            weakest, reachable = _joined_and_moved(machines)
            placements.append(weakest / best)
            reached.append(weakest / reachable)
    placements.sort()
    figures = {
        "swarms": count,
        "route_of_best_worst": round(max(routes), 4),
        "placed_of_best_median": round(statistics.median(placements), 3),
        "placed_of_best_mean": round(statistics.fmean(placements), 3),
        "placed_of_best_worst": round(placements[0], 3),
        "placed_of_best_1_in_100": round(placements[len(placements) // 100], 3),
        "placed_of_best_1_in_20": round(placements[len(placements) // 20], 3),
        "placed_below_0.9": sum(share < 0.9 for share in placements),
        "placements": len(placements),
        "placed_of_reachable_worst": round(min(reached), 3),
    }
    report.figures["small"] = show("small swarms:", figures)
    report.bars.append(Bar("a route's seconds, of the best one's, worst of all", max(routes), "<=", 1.1))
    mean = statistics.fmean(placements)
    report.bars.append(
        Bar("weakest block once all have joined, of the best placement's, mean", mean, ">=", 0.9)
    )


def _small_holder(source: random.Random, number: int) -> Holder:
    start = source.randrange(SMALL_BLOCKS)
    return Holder(
        PeerId(f"{number:016x}"),
        Span(start, source.randint(start + 1, SMALL_BLOCKS)),
        source.randrange(6),
        100 * source.lognormvariate(0, 1),
        source.lognormvariate(-3, 1),
        source.uniform(0.3, 1),
    )


def _chains(holders: Sequence[Holder], start: int) -> Iterator[list[tuple[Holder, int]]]:
    """Every route from a block on."""
    if start == SMALL_BLOCKS:
        yield []
    for one in holders:
        if one.span.start <= start < one.span.end:
            rest = [other for other in holders if other is not one]
            for end in range(start + 1, one.span.end + 1):
                yield from ([(one, end - start), *chain] for chain in _chains(rest, end))


def _seconds(chain: Sequence[tuple[Holder, int]]) -> float:
    return sum(price_of(one).of(blocks) for one, blocks in chain)


def _joined_and_moved(machines: Sequence[Machine]) -> tuple[float, float]:
    """The weakest block once all have joined and moved, and the best that moves could make of it since then.

    They join one after the other; one move is made while each of them loads, and all that are due at the end.
    """
    facts = msgspec.structs.replace(MODEL, blocks=SMALL_BLOCKS, parameters=1000)
    residents: list[Resident] = []
    last: list[LastMove] = []

    def is_moved() -> bool:
        nonlocal residents
        move = next_move(residents, facts, last, SETTLED)
        if move is None:
            return False
        last.insert(0, LastMove(move.peer, SETTLED, move.members))
        residents = [replace(one, span=move.after) if one.peer == move.peer else one for one in residents]
        return True

    for number, one in enumerate(machines):
        span = choose_span(_throughputs(residents), one.length, one.speed)
        newcomer = Resident(PeerId(f"{number:016x}"), span, one.speed, room=one.length, is_serving=False)
        residents.append(newcomer)
        is_moved()
        residents[-1] = replace(newcomer, is_serving=True)
    starts = [resident.span.start for resident in residents]
    while is_moved():
        pass
    return min(_throughputs(residents)), best_reached(SMALL_BLOCKS, machines, starts)


def _throughputs(residents: Sequence[Resident]) -> list[float]:
    return throughputs(SMALL_BLOCKS, ((one.span, one.blocks_per_second) for one in residents))


# ---- mixed swarms, as this relay and as Petals' rule place them --------------------------------


def mixed_swarms(report: Report, hours: float, seeds: Sequence[int]) -> None:
    ratios: list[float] = []
    returns, moves, volunteer_hours = 0, 0, 0.0
    for count in MIXED:
        search = Search(count)
        ours = [run(SimulatedSwarm(count, seed), hours, search) for seed in seeds]
        theirs = [run(SimulatedSwarm(count, seed, petals_rule, moves=False), hours) for seed in seeds]
        ratio = _mean_weakest(ours) / _mean_weakest(theirs)
        ratios.append(ratio)
        returns += sum(one.returns for one in ours)
        moves += sum(one.moves for one in ours)
        volunteer_hours += sum(one.volunteer_hours for one in ours)
        figures = {
            "hours": hours,
            "runs": len(seeds),
            "weakest": round(_mean_weakest(ours), 1),
            "weakest_petals_rule": round(_mean_weakest(theirs), 1),
            "ratio": round(ratio, 3),
            "ratio_best_found": round(search.gain * ratio, 3),
            "ratio_at_most": round(_mean_bound(ours) / _mean_weakest(theirs), 3),
            "covered": round(_covered(ours), 4),
            "covered_petals_rule": round(_covered(theirs), 4),
            "moves_a_volunteer_hour": round(_moves(ours), 4),
            "moves_a_change": round(sum(one.moves for one in ours) / sum(one.changes for one in ours), 3),
        }
        report.figures[f"mixed {count}"] = show(f"{count} volunteers:", figures)
    report.bars.append(
        Bar("weakest block, of Petals' rule's, best of the mixed swarms", max(ratios), ">=", 1.5)
    )
    report.bars.append(Bar("moves back without a change in the swarm", returns, "<=", 0))
    report.bars.append(Bar("moves a volunteer-hour in mixed swarms", moves / volunteer_hours, "<=", 0.2))


def run(swarm: SimulatedSwarm, hours: float, search: "Search | None" = None) -> Outcome:
    for number, _ in enumerate(swarm.run(hours), 1):
        if search is not None and number % SEARCHED_EVERY == 0:
            search.look(swarm)
    return swarm.outcome


class Search:
    """How much stronger the weakest block was where all who serve at a time had been placed anew, at once."""

    def __init__(self, count: int) -> None:
        self._rounds = SEARCHES[count]
        self._random = random.Random(3)
        self._weakest, self._best = 0.0, 0.0

    def look(self, swarm: SimulatedSwarm) -> None:
        serving = swarm.serving()
        machines = [Machine(len(one.span), one.blocks_per_second) for one in serving]
        starts = [one.span.start for one in serving]
        self._weakest += swarm.outcome.weakest[-1]
        self._best += best_found(MODEL.blocks, machines, starts, self._rounds, self._random)

    @property
    def gain(self) -> float:
        """Of the best placements found over those there were, in the mean."""
        return self._best / self._weakest


def _mean_weakest(outcomes: Sequence[Outcome]) -> float:
    return statistics.fmean(one.mean_weakest for one in outcomes)


def _mean_bound(outcomes: Sequence[Outcome]) -> float:
    return statistics.fmean(statistics.fmean(one.bound) for one in outcomes)


def _covered(outcomes: Sequence[Outcome]) -> float:
    return sum(one.covered for one in outcomes) / sum(one.samples for one in outcomes)


def _moves(outcomes: Sequence[Outcome]) -> float:
    return sum(one.moves for one in outcomes) / sum(one.volunteer_hours for one in outcomes)


# ---- thousands ---------------------------------------------------------------------------------


def large_swarm(report: Report, count: int, hours: float) -> None:
    swarm = SimulatedSwarm(count, seed=1)
    planning = Planning()
    for _ in swarm.run(hours):
        planning.follow(swarm)
    ours = swarm.outcome
    theirs = run(SimulatedSwarm(count, 1, petals_rule, moves=False), hours)
    figures = {
        "hours": hours,
        "volunteers": round(ours.volunteer_hours / hours),
        "changes": ours.changes,
        "weakest": round(ours.mean_weakest),
        "weakest_petals_rule": round(theirs.mean_weakest),
        "ratio": round(ours.mean_weakest / theirs.mean_weakest, 3),
        "ratio_at_most": round(_mean_bound([ours]) / theirs.mean_weakest, 3),
        "covered": ours.covered / ours.samples,
        "moves": ours.moves,
        "plans": len(planning.cpu),
        "hops": Spread.of(planning.hops),
        "plan_cpu_ms": _milliseconds(planning.cpu),
        "plan_wall_ms": _milliseconds(planning.wall),
        "update_cpu_us": round(1e6 * planning.update_seconds / max(1, planning.updates), 1),
    }
    report.figures[f"large {count}"] = show(f"{count} volunteers:", figures)
    p99 = figures["plan_cpu_ms"]["p99"]
    report.bars.append(Bar(f"plan over {count} volunteers, ms of CPU, p99", p99, "<=", 5.0))
    report.bars.append(
        Bar(f"{count} volunteers: share of the time with every block", figures["covered"], ">=", 1.0)
    )


def _milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(1e3 * one for one in seconds)
    at = {"p50": 0.5, "p99": 0.99, "most": 1.0}
    return {
        name: round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 3) for name, part in at.items()
    }


class Planning:
    """Plans routes over a simulated swarm as the relay does, and measures how long that takes."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []
        self.hops: list[float] = []
        self.updates, self.update_seconds = 0, 0.0
        self._candidates = Candidates()
        self._known: dict[PeerId, Holder] = {}
        self._random = random.Random(2)

    def follow(self, swarm: SimulatedSwarm) -> None:
        """Take over who serves what now, with new loads, and plan some routes."""
        serving = {one.peer: one for one in swarm.serving()}
        for peer in self._known.keys() - serving.keys():
            del self._known[peer]
            self._candidates.drop(peer)
        for peer, one in serving.items():
            known = self._known.get(peer)
            rtt = self._random.lognormvariate(-3, 0.6) if known is None else known.rtt
            score = self._random.uniform(0.5, 1) if known is None else known.score
            self._put(Holder(peer, one.span, self._random.randrange(6), one.blocks_per_second, rtt, score))
        for _ in range(PLANS_A_PASS):
            self._plan()

    def _plan(self) -> None:
        begun, cpu = time.perf_counter(), time.thread_time()
        found = plan(self._candidates, Span(0, MODEL.blocks), DRIVER)
        self.cpu.append(time.thread_time() - cpu)
        self.wall.append(time.perf_counter() - begun)
        self.hops.append(len(found.legs))
        for leg in found.legs:
            self._put(replace(self._known[leg.peer], sessions=self._known[leg.peer].sessions + 1))

    def _put(self, holder: Holder) -> None:
        self._known[holder.peer] = holder
        begun = time.thread_time()
        self._candidates.put(holder)
        self.update_seconds += time.thread_time() - begun
        self.updates += 1


if __name__ == "__main__":
    main()
