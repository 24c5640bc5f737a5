"""Splits by group."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.splits import Shares, is_training, unit_hash

SHARES = Shares.parse("train=0.8,validation=0.1, test=0.1")


def test_shares_are_kept() -> None:
    counts = Counter(SHARES.split_of("calvin", f"scene {n}", 3) for n in range(5000))
    assert counts["train"] == pytest.approx(4000, abs=120)
    assert counts["validation"] == pytest.approx(500, abs=90)
    assert counts["test"] == pytest.approx(500, abs=90)


@given(st.text(max_size=8), st.text(max_size=8), st.integers(0, 9))
def test_a_group_has_one_split_whatever_else_there_is(source: str, group: str, seed: int) -> None:
    assert SHARES.split_of(source, group, seed) == SHARES.split_of(source, group, seed)
    assert SHARES.split_of(source, group, seed) in ("train", "validation", "test")
    assert Shares.whole("test").split_of(source, group, seed) == "test"


def test_seed_and_source_matter() -> None:
    groups = [f"g{n}" for n in range(200)]
    for other in (("a", 1), ("b", 0)):
        assert any(
            SHARES.split_of("a", g, 0) != SHARES.split_of(other[0], g, other[1]) for g in groups
        )


@given(st.lists(st.text(max_size=5), max_size=4))
def test_the_hash_is_a_share(words: list[str]) -> None:
    assert 0 <= unit_hash(*words) < 1


def test_words_are_kept_apart() -> None:
    assert unit_hash("ab", "c") != unit_hash("a", "bc")


@pytest.mark.parametrize(
    "text", ["", "train", "train=x", "train=0", "train=1.5", "a=0.5,a=0.5", "a=0.5,b=0.4", "=1"]
)
def test_bad_shares(text: str) -> None:
    with pytest.raises(ConfigError, match="--split") as caught:
        Shares.parse(text)
    assert "\n" not in str(caught.value)


def test_bad_name() -> None:
    with pytest.raises(ConfigError, match="--as-split"):
        Shares.whole("my test")


def test_what_is_trained_on() -> None:
    assert [is_training(s) for s in ("train", "train1k", "validation", "dev", "test")] == [
        True,
        True,
        False,
        False,
        False,
    ]
