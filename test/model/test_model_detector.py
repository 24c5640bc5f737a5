"""The detector: episodes in, judgements out; votes, memory, the shuffled control."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import base_config, make_episode, random_blocks

from ifailsense_ros.core.arbitration import arbitrate
from ifailsense_ros.core.checkpoint import CONFIG_FILE, CheckpointConfig
from ifailsense_ros.core.detection import Detector
from ifailsense_ros.core.errors import CheckpointError, ConfigError
from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.core.verdict import Outcome, Reason, VoteValue
from ifailsense_ros.model import stages as stages_module
from ifailsense_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ifailsense_ros.model.detector import (
    FailSenseDetector,
    choose_device,
    choose_dtype,
    is_out_of_memory,
    load_detector,
)
from ifailsense_ros.model.staged import StagedPass
from ifailsense_ros.model.vlm import encode_pictures, encode_prompts, one_pass


@pytest.fixture
def detector(checkpoint) -> FailSenseDetector:
    return load_detector(checkpoint, device="cpu")


def _settings(folder: Path, **changes) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | changes))


def _p(judgement):
    return [v.p_success for v in judgement.votes if v.source != "vlm"]


def test_it_is_a_detector(detector, checkpoint):
    assert isinstance(detector, Detector)
    assert detector.config == CheckpointConfig.from_json(checkpoint)
    assert detector.model_id == detector.config.model_id


def test_votes_are_those_of_the_parts(detector, checkpoint):
    """Against the model and the FS blocks called by hand, the naive way."""
    episode = make_episode(seed=5)
    judgement = detector.judge(episode)
    parts = load_checkpoint(checkpoint)
    montage = compose(episode, MontageGeometry(2, 4, 14, 14))
    inputs = encode_prompts(parts.processor, ["<image> evaluate en lift the red block"])
    with torch.no_grad():
        out = parts.model(
            **inputs,
            pixel_values=encode_pictures(parts.processor, [montage]),
            output_hidden_states=True,
        )
        for k in (0, 1):  # the last one is normed in hidden_states
            p = parts.fs_blocks[k](out.hidden_states[k + 1]).sigmoid().item()
            vote = judgement.votes[k]
            assert vote.p_success == pytest.approx(p, abs=1e-4)
            assert vote.value is (VoteValue.SUCCESS if p > 0.5 else VoteValue.FAIL)
    word = parts.processor.tokenizer.decode(out.logits[0, -1].argmax()).strip()
    assert (judgement.votes[-1].value is VoteValue.ABSTAIN) == (word not in ("success", "fail"))
    assert [v.source for v in judgement.votes] == ["fs:0", "fs:1", "fs:2", "vlm"]
    assert [v.weight for v in judgement.votes] == [1.0, 1.0, 1.0, 2.0]
    again = arbitrate(judgement.votes, "two_of_three")
    assert (judgement.outcome, judgement.p_success) == (again.outcome, again.p_success)


def test_where_padding_counts_a_verdict_still_does_not_depend_on_the_batch(checkpoint):
    """Instructions of several lengths; the parts say that padding would have changed the votes."""
    _settings(checkpoint, schema_version=3, masks_padding=False, calibration=None)
    detector = load_detector(checkpoint, device="cpu")
    texts = ["open", "rotate the blue block to the left", "lift it", "lift", "open the drawer"]
    episodes = [make_episode(text, seed=i) for i, text in enumerate(texts)]
    together = detector.judge_batch(episodes)
    for episode, judgement in zip(episodes, together, strict=True):
        assert _p(judgement) == pytest.approx(_p(detector.judge(episode)), abs=1e-5)
    parts = load_checkpoint(checkpoint)
    prompts = [f"<image> evaluate en {text}" for text in texts[:2]]
    pixels = encode_pictures(
        parts.processor, [compose(e, MontageGeometry(2, 4, 14, 14)) for e in episodes[:2]]
    )
    with torch.no_grad():
        out = one_pass(
            parts.model, encode_prompts(parts.processor, prompts), [0, 1, 2], pixel_values=pixels
        )
        padded = parts.fs_blocks(out.hidden, out.mask).sigmoid()
    assert (padded[0] - torch.tensor(_p(together[0]))).abs().max() > 1e-3  # the shorter one
    assert padded[1].tolist() == pytest.approx(_p(together[1]), abs=1e-5)  # nothing was padded


@pytest.mark.parametrize(
    ("logit", "value"), [(1e-3, VoteValue.SUCCESS), (-1e-3, VoteValue.FAIL), (0.0, VoteValue.FAIL)]
)
def test_a_block_votes_success_above_one_half(checkpoint, logit, value):
    loaded = load_checkpoint(checkpoint)
    for block in loaded.fs_blocks:
        block.classifier[5].weight.zero_()
        block.classifier[5].bias.fill_(logit)
    judgement = FailSenseDetector(loaded).judge(make_episode())
    assert [v.value for v in judgement.votes[:3]] == [value] * 3


def test_verdict_depends_on_pictures_and_instruction(detector):
    first = _p(detector.judge(make_episode(seed=1)))
    assert _p(detector.judge(make_episode(seed=1))) == first
    assert _p(detector.judge(make_episode(seed=2))) != first
    assert _p(detector.judge(make_episode("open the drawer", seed=1))) != first


def test_batch_equals_singles(detector):
    texts = ["lift the red block", "open the drawer", "", "rotate the blue block to the left"]
    episodes = [make_episode(texts[i % 4], seed=i) for i in range(19)]  # more than one batch
    batch = detector.judge_batch(episodes)
    assert len(batch) == 19
    for episode, judgement in zip(episodes, batch, strict=True):
        single = detector.judge(episode)
        assert (judgement.outcome, judgement.reason) == (single.outcome, single.reason)
        assert [v.value for v in judgement.votes] == [v.value for v in single.votes]
        assert _p(judgement) == pytest.approx(_p(single), abs=1e-5)
    assert detector.judge_batch([]) == []


def test_questions_about_the_same_keyframes_share_the_vision_tower(detector, monkeypatch):
    real, looked_at = stages_module.vision_features, []

    def counted(model, pixel_values):
        looked_at.append(len(pixel_values))
        return real(model, pixel_values)

    monkeypatch.setattr(stages_module, "vision_features", counted)
    one, other = make_episode(seed=1), make_episode(seed=2)
    asked = [one, other, replace(one, instruction="open the drawer")]
    together = detector.judge_batch(asked)
    assert looked_at == [2]
    for episode, judgement in zip(asked, together, strict=True):
        assert _p(judgement) == pytest.approx(_p(detector.judge(episode)), abs=1e-5)


@pytest.mark.parametrize(
    ("instruction", "reason", "text"),
    [
        ("", Reason.NO_INSTRUCTION, "empty"),
        (" \n\t", Reason.NO_INSTRUCTION, "empty"),
        ("look <image>", Reason.DETECTOR_ERROR, "<image>"),
        ("lift " * 400, Reason.DETECTOR_ERROR, "too long"),
    ],
)
def test_unaskable_instructions_are_unknown(detector, instruction, reason, text):
    judgement = detector.judge(make_episode(instruction))
    assert (judgement.outcome, judgement.reason) == (Outcome.UNKNOWN, reason)
    assert text in judgement.detail
    assert math.isnan(judgement.p_success)


@pytest.mark.parametrize(
    "instruction", ["<eos> <bos>", "ünï☃", "lift\nthe\nblock", "{x}", "<loc0001>"]
)
def test_odd_instructions_are_judged(detector, instruction):
    assert len(detector.judge(make_episode(instruction)).votes) == 4


def test_abstention_follows_the_rule(checkpoint):
    """The random model answers with some other word, so the VLM abstains."""
    reasons = set()
    for rule in ("two_of_three", "unknown_unless_unanimous"):
        _settings(checkpoint, abstain_rule=rule)
        detector = load_detector(checkpoint, device="cpu")
        for seed in range(30):
            judgement = detector.judge(make_episode(seed=seed))
            fs = {v.value for v in judgement.votes[:3]}
            assert judgement.votes[3].value is VoteValue.ABSTAIN
            if len(fs) > 1 and rule != "two_of_three":
                assert judgement.reason is Reason.VLM_ABSTAINED
            else:
                assert judgement.outcome is not Outcome.UNKNOWN
            reasons.add((rule, len(fs)))
    assert len(reasons) == 4  # both rules saw unanimous and divided blocks


def test_answer_words_decide_the_vlms_vote(checkpoint):
    """The word the random model does answer with, declared to mean success, then failure."""
    parts = load_checkpoint(checkpoint)
    episode = make_episode(seed=3)
    montage = compose(episode, MontageGeometry(2, 4, 14, 14))
    inputs = encode_prompts(parts.processor, ["<image> evaluate en lift the red block"])
    with torch.no_grad():
        logits = parts.model(
            **inputs, pixel_values=encode_pictures(parts.processor, [montage])
        ).logits[0, -1]
    said = parts.processor.tokenizer.decode(logits.argmax()).strip().lower()
    assert said
    for value, words in (
        (VoteValue.SUCCESS, {"success": [said], "fail": ["fail"]}),
        (VoteValue.FAIL, {"success": ["success"], "fail": [said]}),
    ):
        _settings(checkpoint, answer_words=words)
        vote = load_detector(checkpoint, device="cpu").judge(episode).votes[-1]
        assert vote.value is value
        assert (vote.p_success > 0.5) == (value is VoteValue.SUCCESS)


def test_another_number_of_keyframes_is_a_programming_error(detector):
    with pytest.raises(ValueError, match="3 keyframes"):
        detector.judge(make_episode(keyframes=3))


def test_vlm_alone(checkpoint, tmp_path):
    config = base_config()
    config = base_config(
        hooked_layers=(),
        vote_weights=type(config.vote_weights)((), 2.0),
        abstain_rule="unknown_unless_unanimous",
    )
    save_checkpoint(tmp_path / "vlm", config, base=checkpoint / "base")
    judgement = load_detector(tmp_path / "vlm", device="cpu").judge(make_episode())
    assert [v.source for v in judgement.votes] == ["vlm"]
    assert judgement.reason is Reason.VLM_ABSTAINED


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "python", "cpu"])
def test_out_of_memory_is_unknown(detector, monkeypatch, error):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(StagedPass, "first", fail)
    for judgement in detector.judge_batch([make_episode(seed=i) for i in range(3)]):
        assert judgement.reason is Reason.DETECTOR_OUT_OF_MEMORY
    monkeypatch.undo()
    assert detector.judge(make_episode()).votes  # and it lives on


def test_a_real_allocation_failure_is_recognised():
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_out_of_memory_halves_the_batch(detector, monkeypatch):
    real, sizes = StagedPass.first, []

    def small_only(self, ids, *args):
        sizes.append(len(ids))
        if sizes[-1] > 2:
            raise MemoryError
        return real(self, ids, *args)

    episodes = [make_episode(seed=i) for i in range(5)]
    expected = [_p(j) for j in detector.judge_batch(episodes)]
    monkeypatch.setattr(StagedPass, "first", small_only)
    ours = [_p(j) for j in detector.judge_batch(episodes)]
    assert sizes == [5, 2, 3, 1, 2]
    for a, b in zip(ours, expected, strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_other_errors_are_not_hidden(detector, monkeypatch):
    def fail(*_args, **_kwargs):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(StagedPass, "first", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        detector.judge(make_episode())


@pytest.mark.parametrize("part", ["fs", "vlm"])
def test_numbers_that_are_none_are_a_detector_error(checkpoint, part):
    """E.g. an overflow in half precision: finite weights, and NaN all the same."""
    loaded = load_checkpoint(checkpoint)
    broken = loaded.fs_blocks[1].classifier[5] if part == "fs" else loaded.model.lm_head
    hook = broken.register_forward_hook(lambda _m, _a, out: out * torch.nan)
    judgement = FailSenseDetector(loaded).judge(make_episode())
    hook.remove()
    assert (judgement.outcome, judgement.reason) == (Outcome.UNKNOWN, Reason.DETECTOR_ERROR)
    assert judgement.detail


def _tensors(detector):
    modules = (detector._model.model, detector._fs_blocks)
    return {(i, k): v.clone() for i, m in enumerate(modules) for k, v in m.state_dict().items()}


def test_shuffling_permutes_every_trained_tensor_and_nothing_else(checkpoint):
    plain = _tensors(load_detector(checkpoint, device="cpu"))
    detector = load_detector(checkpoint, device="cpu", shuffle_seed=7)
    again = _tensors(load_detector(checkpoint, device="cpu", shuffle_seed=7))
    other = _tensors(load_detector(checkpoint, device="cpu", shuffle_seed=8))
    shuffled = _tensors(detector)
    moved = 0
    for key, before in plain.items():
        after = shuffled[key]
        assert after.shape == before.shape
        assert torch.equal(after, again[key]), "the same seed gives the same weights"
        if "vision_tower" in key[1] or before.numel() < 2 or not before.is_floating_point():
            assert torch.equal(after, before)
            continue
        torch.testing.assert_close(after.flatten().sort()[0], before.flatten().sort()[0])
        constant = bool((before == before.flatten()[0]).all())
        assert torch.equal(after, before) == constant, key
        if not constant:
            moved += 1
            if before.numel() > 8:
                assert not torch.equal(after, other[key])
    assert moved > 50
    head, table = detector._model.lm_head, detector._model.get_input_embeddings()
    assert head.weight is table.weight  # still tied, permuted once


def test_shuffling_changes_the_votes_and_is_named(checkpoint):
    plain = load_detector(checkpoint, device="cpu")
    first = load_detector(checkpoint, device="cpu", shuffle_seed=7)
    second = load_detector(checkpoint, device="cpu", shuffle_seed=7)
    assert first.model_id == f"{plain.model_id}+shuffled-7"
    differing = 0
    for seed in range(10):
        episode = make_episode(seed=seed)
        assert _p(first.judge(episode)) == _p(second.judge(episode))
        differing += _p(first.judge(episode)) != _p(plain.judge(episode))
    assert differing == 10


def test_settings_of_the_machine(checkpoint):
    with pytest.raises(ConfigError, match="device 'abacus'"):
        load_detector(checkpoint, device="abacus")
    with pytest.raises(ConfigError, match="dtype 'int8'"):
        load_detector(checkpoint, dtype="int8")
    with pytest.raises(ConfigError, match="num_threads"):
        load_detector(checkpoint, num_threads=0)
    with pytest.raises(CheckpointError, match="neither"):
        load_detector("no-such-checkpoint")
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32
    assert choose_dtype("auto", torch.device("cuda")) is torch.bfloat16
    assert choose_device("cpu") == torch.device("cpu")
    threads = torch.get_num_threads()
    try:
        load_detector(checkpoint, device="cpu", num_threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_absent_cuda_is_a_config_error(checkpoint):
    if torch.cuda.is_available():
        pytest.skip("CUDA is present")
    with pytest.raises(ConfigError, match="not available here"):
        load_detector(checkpoint, device="cuda")


def test_bfloat16_votes_are_near(checkpoint):
    episode = make_episode(seed=4)
    exact = _p(load_detector(checkpoint, device="cpu").judge(episode))
    half = _p(load_detector(checkpoint, device="cpu", dtype="bfloat16").judge(episode))
    assert half == pytest.approx(exact, abs=0.1)


@pytest.mark.gpu
def test_cuda_votes_are_near(checkpoint):
    episode = make_episode(seed=4)
    exact = _p(load_detector(checkpoint, device="cpu").judge(episode))
    cuda = load_detector(checkpoint, device="cuda", dtype="float32")
    assert _p(cuda.judge(episode)) == pytest.approx(exact, abs=1e-3)
    assert _p(load_detector(checkpoint).judge(episode)) == pytest.approx(exact, abs=0.1)
    shuffled = load_detector(checkpoint, device="cuda", dtype="float32", shuffle_seed=7)
    same = load_detector(checkpoint, device="cpu", shuffle_seed=7)
    assert _p(shuffled.judge(episode)) == pytest.approx(_p(same.judge(episode)), abs=1e-3)


def test_the_episode_is_left_alone(detector):
    episode = make_episode()
    before = [v.copy() for k in episode.keyframes for v in k.views]
    detector.judge(episode)
    views = [v for k in episode.keyframes for v in k.views]
    assert all(np.array_equal(a, b) for a, b in zip(views, before, strict=True))


def test_fs_blocks_of_the_fixture_disagree_sometimes(detector):
    """Guards the tests above: constant heads would make them empty."""
    votes = {
        tuple(v.value for v in detector.judge(make_episode(seed=s)).votes[:3]) for s in range(30)
    }
    assert len(votes) > 2
    assert random_blocks(base_config())[0].classifier[5].weight.std() > 0
