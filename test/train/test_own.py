"""FS blocks re-trained on a user's own labels: what is split how, and what comes out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_runs  # noqa: F401  (puts the tiny models on the path)
import torch
from hypothesis import given as given_that
from hypothesis import strategies as st
from tiny_models import base_config, build_model, random_blocks

from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.records import EpisodeRecord
from ifailsense_ros.evaluate.metrics import summary
from ifailsense_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ifailsense_ros.model.detector import FailSenseDetector
from ifailsense_ros.train.own import OwnSettings, retrain
from ifailsense_ros.train.own_data import (
    HELD_OUT,
    LEAST,
    TRAIN,
    VALIDATION,
    Given,
    Labelled,
    misaligned_samples,
    own_samples,
    split_by_group,
)
from ifailsense_ros.train.own_states import balanced
from ifailsense_ros.train.own_verdicts import GUARD_FROM

SHARES = {TRAIN: 0.55, VALIDATION: 0.2, HELD_OUT: 0.25}
SECOND = 10**9
DARK, BRIGHT = 30, 220


def record(index: int, success: bool, **changes: object) -> EpisodeRecord:
    """Two cameras; whether it succeeded shows in how bright the last pictures are."""

    def read(steps: Sequence[int]) -> tuple[Keyframe, ...]:
        rng = np.random.default_rng(index)
        noise = rng.integers(0, 20, (2, 14, 14, 3), dtype=np.uint8)
        return tuple(
            Keyframe(s * SECOND, tuple(noise + (BRIGHT if success and s > 1 else DARK)))
            for s in steps
        )

    made = EpisodeRecord(
        source="made-up",
        key=f"try {index}",
        group=f"session {index // 4}",
        instruction="lift the red block",
        task="lift the red block" if success else "",
        category="lifting",
        kind="",
        success=success,
        stamps_ns=tuple(s * SECOND for s in range(4)),
        num_pov=2,
        read=read,
    )
    return replace(made, **changes)


def given(count: int = 48, **changes: object) -> list[Given]:
    """Successes and failures in turn, four a session."""
    return [
        Given(f"episode {i}", record(i, i % 2 == 0, **changes), i % 2 == 0) for i in range(count)
    ]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("checkpoint")
    model, processor = build_model("dinov2")
    model.save_pretrained(folder / "source")
    processor.save_pretrained(folder / "source")
    config = base_config(abstain_rule="unknown_unless_unanimous")
    save_checkpoint(folder / "old", config, base=folder / "source", fs_blocks=random_blocks(config))
    return folder / "old"


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "mine"
    settings = OwnSettings(steps=120, lr=3e-3)
    return retrain(checkpoint, given(), out, settings, summary, command="ifailsense train fs")


def test_blocks_learn_what_the_labels_say(made, checkpoint):
    after = made.figures["held_out"]["after"]
    assert after["n"] == sum(
        made.figures["episodes"][HELD_OUT][k] for k in ("successes", "failures")
    )
    # The VLM is random and votes with weight 2: the three blocks have to agree against it.
    detector = FailSenseDetector(load_checkpoint(made.folder))
    votes = {True: [], False: []}
    for one in given():
        logits = detector.measure_batch([one.record.episode(4, 2)])[0].logits
        votes[one.success] += list(logits[:3] > 0)
    assert np.mean(votes[True]) > 0.9
    assert np.mean(votes[False]) < 0.1
    assert after["accuracy"] > made.figures["held_out"]["before"]["accuracy"]


def test_the_new_checkpoint_is_the_old_one_with_other_blocks(made, checkpoint):
    made.config.verify(made.folder)
    old = load_checkpoint(checkpoint)
    new = load_checkpoint(made.folder)
    assert new.config.name == "mine"
    assert new.config.metrics["made_from"] == old.config.model_id
    assert new.config.hooked_layers == old.config.hooked_layers
    assert new.config.calibration.guard is None  # a dozen validation episodes are too few
    for name, tensor in old.model.state_dict().items():
        assert torch.equal(tensor, new.model.state_dict()[name])
    changed = [
        name
        for name, tensor in old.fs_blocks.state_dict().items()
        if not torch.equal(tensor, new.fs_blocks.state_dict()[name])
    ]
    assert "0.classifier.5.weight" in changed
    card = (made.folder / "README.md").read_text()
    assert old.config.model_id in card
    assert "| after |" in card
    assert not list((made.folder.parent / "montages").iterdir())


def test_the_same_call_again_trains_nothing_and_gives_the_same(made, checkpoint):
    before = (made.folder / "fs_blocks.safetensors").read_bytes()
    settings = OwnSettings(steps=120, lr=3e-3)
    again = retrain(
        checkpoint, given(), made.folder.parent, settings, summary, command="ifailsense train fs"
    )
    assert (made.folder / "fs_blocks.safetensors").read_bytes() == before
    assert again.figures == made.figures
    assert again.config.model_id == made.config.model_id


def test_other_labels_in_the_same_folder_are_refused(made, checkpoint):
    with pytest.raises(ConfigError, match="another data set"):
        retrain(
            checkpoint,
            given(52),
            made.folder.parent,
            OwnSettings(steps=120, lr=3e-3),
            summary,
        )


def test_many_episodes_give_a_guard_and_fresh_blocks(checkpoint, tmp_path):
    settings = OwnSettings(steps=4, fresh=True, shares=(0.3, 0.6, 0.1))
    made = retrain(checkpoint, given(120), tmp_path / "mine", settings, summary)
    assert sum(made.figures["episodes"][VALIDATION][k] for k in ("successes", "failures")) >= (
        GUARD_FROM
    )
    assert made.config.calibration.guard is not None
    assert load_checkpoint(made.folder).calibration.guard is not None


def test_fresh_blocks_have_little_dropout_and_trained_ones_keep_theirs(checkpoint):
    config = CheckpointConfig.from_json(checkpoint)
    config = replace(config, fs_head=replace(config.fs_head, dropout=0.5))
    assert OwnSettings(fresh=True).stage2(config).head.dropout == 0.1
    assert OwnSettings().stage2(config).head == config.fs_head


def broken(steps):
    raise DataError("cut.mcap: ends too early; copy it again")


def test_what_cannot_be_read_is_left_out_and_said(checkpoint, tmp_path):
    episodes = [
        *given(40),
        Given("cut", record(40, True, read=broken), True),
        Given("short", record(41, True, stamps_ns=(0, 1)), True),
        Given("mute", record(42, True, instruction=" "), True),
    ]
    made = retrain(checkpoint, episodes, tmp_path / "mine", OwnSettings(steps=2), summary)
    assert [p.where for p in made.problems] == ["cut", "short", "mute"]
    assert "ends too early" in made.problems[0].what
    assert "no instruction" in made.problems[2].what


@pytest.mark.parametrize(
    ("episodes", "said"),
    [
        ([], "0 successes among 0"),
        ([Given("a", record(0, True, read=broken), True)] * 2, "2 could not be used, .* a: cut"),
        (given(14), "7 successes among 14"),
        ([g for g in given(60) if g.success], "0 failures among 30"),
        (given(40, group="one bag"), "--by-episode"),
    ],
)
def test_too_few_labels_are_one_line(checkpoint, tmp_path, episodes, said):
    with pytest.raises(DataError, match=said) as error:
        retrain(checkpoint, episodes, tmp_path / "mine", OwnSettings(), summary)
    assert "\n" not in str(error.value)


def test_one_session_can_be_split_if_that_is_wanted(checkpoint, tmp_path):
    settings = OwnSettings(steps=2, by_episode=True)
    made = retrain(checkpoint, given(40, group="one bag"), tmp_path / "mine", settings, summary)
    assert made.figures["held_out"]["after"]["scenes"] == made.figures["held_out"]["after"]["n"]


def test_a_checkpoint_without_blocks_is_refused(checkpoint, tmp_path):
    config = base_config(
        fs_blocks=None,
        hooked_layers=(),
        vote_weights=replace(base_config().vote_weights, fs=()),
        abstain_rule="unknown_unless_unanimous",
    )
    save_checkpoint(tmp_path / "bare", config, base=checkpoint / "base")
    with pytest.raises(ConfigError, match="no FS blocks"):
        retrain(tmp_path / "bare", given(), tmp_path / "mine", OwnSettings(), summary)


# --- splitting ------------------------------------------------------------------------------------


def labelled(success: bool, group: str, **changes: object) -> Labelled:
    made = Labelled("", group, "lift the red block", success, "lift", "lifting", None)
    return replace(made, **changes)


@given_that(
    st.lists(st.tuples(st.booleans(), st.integers(0, 11)), min_size=30, max_size=120),
    st.integers(0, 5),
)
def test_no_group_is_in_two_parts_and_nothing_is_lost(drawn, seed):
    episodes = [labelled(success, f"session {group}") for success, group in drawn]
    try:
        parts = split_by_group(episodes, SHARES, seed)
    except DataError:
        return
    assert sorted(i for part in parts.values() for i in part) == list(range(len(episodes)))
    groups = [{episodes[i].group for i in part} for part in parts.values()]
    assert sum(len(g) for g in groups) == len(set().union(*groups))
    for name, part in parts.items():
        counts = Counter(episodes[i].success for i in part)
        assert min(counts[True], counts[False]) >= LEAST[name]


@pytest.mark.parametrize("failures", [8, 20])
def test_both_classes_have_about_their_shares(failures):
    episodes = [labelled(True, f"session {i}") for i in range(60)]
    episodes += [labelled(False, f"failed {i}") for i in range(failures)]
    parts = split_by_group(episodes, SHARES, 0)
    for name, share in SHARES.items():
        counts = Counter(episodes[i].success for i in parts[name])
        assert abs(counts[True] - 60 * share) <= 1
        assert abs(counts[False] - failures * share) <= 1


# --- questions ------------------------------------------------------------------------------------


def test_wrong_instructions_only_where_tasks_have_names():
    sentences = [("lift_red", "lift the red block"), ("lift_blue", "lift the blue block")]
    episodes = [labelled(True, "a", task=task, instruction=text) for task, text in sentences] + [
        labelled(False, "a", task="")
    ]
    asked = misaligned_samples(episodes, range(3), 0)
    assert [(s.index, s.instruction, s.success) for s in asked] == [
        (0, "lift the blue block", False),
        (1, "lift the red block", False),
    ]
    unnamed = replace(episodes[0], task="lift the red block")
    assert misaligned_samples([unnamed, *episodes[1:]], range(3), 0) == []
    known = replace(episodes[0], wrong_tasks=())  # the other came true as well, or was impossible
    assert [s.index for s in misaligned_samples([known, *episodes[1:]], range(3), 0)] == [1]
    assert [s.success for s in own_samples(episodes, range(3))] == [True, True, False]


def test_the_rarer_class_comes_as_often(made):
    labels = np.array([True] * 7 + [False] * 2)
    rows = balanced(labels)
    assert Counter(labels[rows].tolist()) == {True: 7, False: 7}
    assert set(rows.tolist()) == set(range(9))
    assert json.loads((made.folder.parent / "figures.json").read_text()) == made.figures
