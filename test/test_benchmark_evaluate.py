"""The reading benchmark: both ways decode the same pictures, and its own arithmetic."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

evaluate = pytest.importorskip("benchmarks.evaluate")


def test_both_ways_read_the_same_bags(tmp_path: Path) -> None:
    bags = evaluate.make_bags(tmp_path, 5, 2)
    assert [len(bag.keyframes) for bag in bags] == [2, 2, 1]
    assert len({stamps for bag in bags for stamps in bag.keyframes}) == 5
    # T = 4 keyframes of two cameras, each picture at a place of its own.
    assert [len(bag.places) for bag in bags] == [16, 16, 8]
    times = evaluate.measure(bags)  # checks that the same is decoded each time
    assert [len(spent) for spent in dataclasses.astuple(times)] == [3, 3, 3, 3]
    assert evaluate.report(bags, times)["episodes"] == 5


def test_figures() -> None:
    bag = evaluate.MadeBag(Path(), 10.0, [(1, 2), (3, 4)], {("a", 1), ("a", 2)})
    times = evaluate.Times(
        ours=[0.1, 0.1, 0.2],
        ours_unshrunk=[0.1, 0.075, 0.15],
        bare=[0.1, 0.05, 0.05],
        bare_shrunk=[0.1, 0.08, 0.1],
    )
    found = evaluate.report([bag, bag, bag], times)
    assert found["times_real_time_a_core"] == 75.0
    assert (found["ratio_to_bare"], found["median_ratio_to_bare"]) == (2.0, 2.0)
    assert found["median_ratio_none_shrinking"] == 1.5
    assert found["median_ratio_both_shrinking"] == 1.25
    assert (found["episodes"], found["pictures_decoded"]) == (6, 6)
