from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.data.smf import (
    ExpertEpisode,
    Phrasings,
    category_table,
    draw_negative_task,
    fixed_pairs,
)

LIFT = [f"lift_{c}_block" for c in ("red", "blue", "pink")]


def episode(index, task="lift_red_block", **kw):
    kw.setdefault("instruction", f"do {task}")
    return ExpertEpisode(index, task, "lifting", **kw)


def everything(episodes):
    return category_table(episodes), Phrasings.of(episodes)


@given(st.lists(st.sampled_from(LIFT), min_size=2, max_size=30), st.integers(0, 99))
def test_each_episode_appears_once_with_each_label_and_never_with_its_own_task_as_negative(
    tasks, seed
):
    episodes = [episode(i, t) for i, t in enumerate(tasks)]
    if len(set(tasks)) < 2:
        return
    pairs = fixed_pairs(episodes, *everything(episodes), seed=seed)
    assert Counter((p.index, p.success) for p in pairs) == Counter(
        (i, y) for i in range(len(tasks)) for y in (True, False)
    )
    for p in pairs:
        assert (p.task == tasks[p.index]) == p.success
        assert p.category == "lifting"


def test_designated_negative_is_used_with_its_contrast():
    e = episode(
        3,
        negative_task="lift_blue_block",
        negative_instruction="raise the blue block",
        contrast=("colour",),
    )
    positive, negative = fixed_pairs([e], *everything([e]))
    assert (negative.instruction, negative.success) == ("raise the blue block", False)
    assert positive.contrast == negative.contrast == ("colour",)


def test_negatives_that_came_true_or_were_infeasible_are_never_drawn():
    e = episode(0, wrong_tasks=("lift_pink_block",))
    rng = np.random.default_rng(0)
    drawn = {draw_negative_task(e, {"lifting": LIFT}, rng) for _ in range(50)}
    assert drawn == {"lift_pink_block"}


def test_a_category_with_one_task_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="episode 0: category 'lifting' has no task beside"):
        draw_negative_task(episode(0), {"lifting": LIFT[:1]}, np.random.default_rng(0))


def test_same_seed_same_pairs():
    episodes = [episode(i, t) for i, t in enumerate(LIFT * 5)]
    tables = everything(episodes)
    assert fixed_pairs(episodes, *tables, seed=1) == fixed_pairs(episodes, *tables, seed=1)
    assert fixed_pairs(episodes, *tables, seed=1) != fixed_pairs(episodes, *tables, seed=2)
