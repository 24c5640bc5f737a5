"""Which wrong task may serve, how it is drawn, and how labels are balanced afterwards."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.data.contrast import contrast_of, is_hard
from ifailsense_ros.data.negatives import (
    Quota,
    label_z,
    surplus,
    verdict_on,
    verdict_on_positive,
)

TASKS = [f"push_{c}_block_{s}" for c in ("red", "blue", "pink") for s in ("left", "right")]


@pytest.mark.parametrize(
    ("outcomes", "feasible", "verdict"),
    [
        ({}, None, ""),
        ({"a": -1}, ("a",), ""),
        ({"a": 1}, ("a",), "came_true"),
        ({"a": 0}, ("a",), "disputed"),
        ({"a": -1}, ("b",), "infeasible"),
        ({"b": 1}, None, ""),
    ],
)
def test_what_may_serve_as_wrong(outcomes: dict, feasible: tuple | None, verdict: str) -> None:
    assert verdict_on("a", outcomes, feasible) == verdict


def test_what_may_serve_as_right() -> None:
    words = [verdict_on_positive("a", o) for o in ({}, {"a": 1}, {"a": 0}, {"a": -1})]
    assert words == ["", "", "disputed", "not_carried_out"]


@given(
    st.lists(st.sampled_from(TASKS), min_size=1, max_size=5, unique=True),
    st.dictionaries(st.sampled_from(TASKS), st.integers(-3, 3)),
    st.integers(0, 99),
)
def test_only_allowed_tasks_are_drawn_and_noted(allowed, owed, seed) -> None:
    quota = Quota(dict(owed))
    task, contrast = quota.draw("push_green_block_up", allowed, np.random.default_rng(seed))
    assert task in allowed
    assert contrast == contrast_of("push_green_block_up", task)
    assert quota.owed[task] == owed.get(task, 0) - 1


def test_what_is_owed_is_drawn_before_what_is_not() -> None:
    quota = Quota({"b_x": 2, "c_x": 0})
    rng = np.random.default_rng(0)
    assert [quota.draw("a_x", ["b_x", "c_x"], rng)[0] for _ in range(2)] == ["b_x", "b_x"]
    assert {quota.draw("a_x", ["b_x", "c_x"], rng)[0] for _ in range(2)} == {"b_x", "c_x"}


def test_most_draws_are_hard_and_tasks_balance() -> None:
    rng = np.random.default_rng(0)
    performed = [TASKS[int(i)] for i in rng.integers(len(TASKS), size=600)]
    quota = Quota(dict(Counter(performed)))
    drawn = [quota.draw(t, [u for u in TASKS if u != t], rng) for t in performed]
    assert sum(is_hard(contrast) for _, contrast in drawn) > 360
    assert all(abs(left) <= 8 for left in quota.owed.values()), quota.owed


counts_of_pairs = st.dictionaries(
    st.tuples(st.sampled_from(TASKS), st.sampled_from(TASKS)).filter(lambda p: p[0] != p[1]),
    st.integers(0, 12),
)


@given(counts_of_pairs)
def test_what_is_left_balances_exactly(counts) -> None:
    out = surplus(counts)
    balance: Counter[str] = Counter()
    for pair, n in counts.items():
        left = n - out.get(pair, 0)
        assert 0 <= left <= n
        balance[pair[0]] += left
        balance[pair[1]] -= left
    assert set(balance.values()) <= {0}
    assert set(out) <= set(counts)


def test_nothing_is_left_out_of_a_balanced_set() -> None:
    assert surplus({("a", "b"): 3, ("b", "c"): 3, ("c", "a"): 3}) == {}


def test_as_little_as_possible_is_left_out() -> None:
    assert surplus({("a", "b"): 5, ("b", "a"): 3}) == {("a", "b"): 2}
    # Over a task in between: both arrows must go.
    assert surplus({("a", "b"): 1, ("b", "c"): 1}) == {("a", "b"): 1, ("b", "c"): 1}


def test_distance_of_two_counts() -> None:
    assert label_z(0, 0) == 0
    assert label_z(50, 50) == 0
    assert label_z(16, 0) == pytest.approx(4)
