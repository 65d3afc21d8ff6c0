"""Random lives of an optimizer: whatever happens to it between steps, it ends where an undisturbed twin ends.

Hypothesis draws what happens, and shrinks what fails. Short by default; `-m slow` runs a longer one. For a million
operations by hand there is scripts/fuzz.py, which lives the same lives without Hypothesis, several times faster.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lives import EXECUTORS, KINDS, RATES, SIZES, Life
from slalom import list_optimizers

seeds = st.integers(0, 2**32 - 1)
rates = st.sampled_from(RATES)
flags = st.booleans()
places = st.integers(0, 7)


class Lives(Life, RuleBasedStateMachine):
    """How each operation is drawn."""

    born = initialize(
        name=st.sampled_from(list_optimizers()),
        executor=st.sampled_from(EXECUTORS),
        kinds=st.lists(st.tuples(st.sampled_from(KINDS), flags), min_size=1, max_size=4),
        rows=st.sampled_from(["exact", "lazy"]),
        seed=seeds,
    )(Life.born)
    step = rule(missing=st.integers(0, 255), size=st.sampled_from(SIZES), seed=seeds, stays=flags, sparse=flags)(
        Life.step
    )
    plain_steps = rule(seed=seeds)(Life.plain_steps)
    add_group = precondition(Life.has_room)(
        rule(kind=st.sampled_from(KINDS), transposed=flags, seed=seeds, lr=rates)(Life.add_group)
    )
    freeze_or_thaw = rule(place=places)(Life.freeze_or_thaw)
    change = rule(
        place=st.integers(0, 3),
        lr=st.none() | rates,
        decay=st.none() | st.sampled_from([0.0, 0.1]),
        first=st.none() | st.sampled_from([0.0, 0.5, 0.9]),
        up=st.none() | flags,
        tensor=flags,
    )(Life.change)
    schedule = rule()(Life.schedule)
    switch_executor = rule(executor=st.sampled_from(EXECUTORS))(Life.switch_executor)
    begin_anew = rule()(Life.begin_anew)
    save_and_load = rule(into_itself=flags)(Life.save_and_load)
    move_in_memory = rule(state_too=flags)(Life.move_in_memory)
    become_a_copy = rule(by_pickle=flags)(Life.become_a_copy)
    meet_a_bad_gradient = rule(bad=st.sampled_from([float("nan"), float("inf"), -float("inf")]), place=places)(
        Life.meet_a_bad_gradient
    )
    overflow = rule()(Life.overflow)
    make_all_state = rule()(Life.make_all_state)
    read_the_average = rule()(Life.read_the_average)
    be_printed = rule()(Life.be_printed)
    both_are_equal = invariant()(Life.both_are_equal)


def live(examples: int, steps: int, **more: Any) -> None:
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            **more,
        ),
    )


def test_short_lives() -> None:
    live(20, 30, derandomize=True, phases=[Phase.generate])


@pytest.mark.slow
def test_long_lives() -> None:
    live(int(os.environ.get("SLALOM_FUZZ", "150")), 60)
