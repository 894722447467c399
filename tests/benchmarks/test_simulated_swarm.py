"""benchmarks/simulated_swarm.py: the same seed is the same day, and Petals' rule is Petals' rule."""

from benchmarks.simulated_swarm import Outcome, SimulatedSwarm, petals_rule
from schema.ids import Span


def hours(swarm: SimulatedSwarm, count: float) -> Outcome:
    for _ in swarm.run(count):
        pass
    return swarm.outcome


def test_the_same_seed_is_the_same_swarm() -> None:
    assert hours(SimulatedSwarm(12, seed=3), 2) == hours(SimulatedSwarm(12, seed=3), 2)
    assert hours(SimulatedSwarm(12, seed=3), 2) != hours(SimulatedSwarm(12, seed=4), 2)


def test_both_rules_meet_the_same_volunteers() -> None:
    ours = hours(SimulatedSwarm(12, seed=3), 2)
    theirs = hours(SimulatedSwarm(12, seed=3, place=petals_rule, moves=False), 2)
    assert (ours.changes, ours.volunteer_hours) == (theirs.changes, theirs.volunteer_hours)
    assert theirs.moves == 0


def test_petals_rule_takes_the_window_whose_weakest_are_weakest() -> None:
    assert petals_rule([3.0, 1.0, 2.0, 2.0, 1.5, 1.6], 2, 1.0, ()) == Span(1, 3)
    assert petals_rule([5.0, 1.0, 5.0, 1.0, 2.0], 2, 1.0, ()) == Span(3, 5)
