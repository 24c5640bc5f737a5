"""The pass in two stages: equal to the whole one, stopped where the VLM cannot change anything."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import base_config, make_episode, pictures_for, random_blocks

from ifailsense_ros.core.arbitration import arbitrate
from ifailsense_ros.core.calibration import Calibration, Scores, Temperatures
from ifailsense_ros.core.checkpoint import CONFIG_FILE, VoteWeights
from ifailsense_ros.core.errors import CheckpointError, ConfigError
from ifailsense_ros.core.verdict import Outcome, Reason, Vote, VoteValue
from ifailsense_ros.model import device as device_module
from ifailsense_ros.model.accelerate import padded_batch, padded_length, warm_lengths
from ifailsense_ros.model.calibration import CalibrationData
from ifailsense_ros.model.checkpoint import is_big, load_checkpoint, save_checkpoint
from ifailsense_ros.model.decision import Decision
from ifailsense_ros.model.detector import FailSenseDetector, load_detector
from ifailsense_ros.model.device import choose_dtype, has_lost_device
from ifailsense_ros.model.images import Normaliser, picture_bytes
from ifailsense_ros.model.staged import StagedPass
from ifailsense_ros.model.vlm import (
    Answer,
    encode_pictures,
    encode_prompts,
    one_pass,
    vision_features,
)

PROMPTS = [
    "<image> evaluate en lift the red block",
    "<image> evaluate en open the drawer",
    "<image> evaluate en rotate the blue block to the left again and again",
]


@pytest.mark.parametrize("layers", [(0, 1), (0, 1, 2), (2,), ()])
def test_both_stages_equal_the_model_s_own_forward(vlm, layers):
    model, processor = vlm
    inputs = encode_prompts(processor, PROMPTS)
    pixels = encode_pictures(processor, pictures_for(processor, 3))
    staged, mask = StagedPass(model, layers), inputs["attention_mask"].bool()
    with torch.no_grad():
        whole = one_pass(model, inputs, layers, pixel_values=pixels)
        hidden = staged.first(inputs["input_ids"], mask, vision_features(model, pixels))
        logits = staged.second(hidden[-1], mask)
        some = staged.second(hidden[-1][[2, 0]], mask[[2, 0]])
    for ours, theirs in zip(hidden, whole.hidden, strict=False):
        torch.testing.assert_close(ours[mask], theirs[mask], atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(logits, whole.logits, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(some, whole.logits[[2, 0]], atol=2e-5, rtol=2e-5)
    assert staged.can_stop == (layers == (0, 1))


def test_without_padding_no_mask_is_needed(vlm):
    """A missing mask must not be taken for a causal one, by either kind of attention."""
    model, processor = vlm
    inputs = encode_prompts(processor, PROMPTS[:1])
    pixels = encode_pictures(processor, pictures_for(processor, 1))
    staged = StagedPass(model, (0, 1))
    with torch.no_grad():
        whole = one_pass(model, inputs, (0, 1), pixel_values=pixels)
        hidden = staged.first(inputs["input_ids"], None, vision_features(model, pixels))
        logits = staged.second(hidden[-1], None)
    torch.testing.assert_close(logits, whole.logits, atol=2e-5, rtol=2e-5)


def test_a_model_of_another_kind_is_refused(dino):
    model, _ = dino
    model.model.language_model.config.model_type = "llama"
    with pytest.raises(CheckpointError, match="is a llama, and must be one of gemma, gemma2"):
        StagedPass(model, (0, 1))


def test_bytes_become_the_processor_s_numbers(vlm):
    _, processor = vlm
    normalise = Normaliser(processor, torch.device("cpu"))
    rng = np.random.default_rng(1)
    odd = [rng.integers(0, 256, (31, 40, 3), dtype=np.uint8) for _ in range(2)]
    for pictures in (pictures_for(processor, 2), odd):
        shown = picture_bytes(processor, pictures)
        assert shown.dtype is torch.uint8
        theirs = encode_pictures(processor, pictures)
        torch.testing.assert_close(normalise(shown), theirs, atol=1e-5, rtol=0)
    processor.image_processor.do_normalize = False
    try:
        with pytest.raises(CheckpointError, match="does not rescale and normalise"):
            Normaliser(processor, torch.device("cpu"))
    finally:
        processor.image_processor.do_normalize = True


# --- the detector ---------------------------------------------------------------------------------


@pytest.fixture
def shallow(tmp_path: Path, checkpoint: Path) -> Path:
    """A checkpoint whose deepest hook leaves a layer to save."""
    config = base_config(hooked_layers=(0, 1), vote_weights=VoteWeights((1.0, 1.0), 1.5))
    folder = tmp_path / "shallow"
    save_checkpoint(folder, config, base=checkpoint / "base", fs_blocks=random_blocks(config))
    return folder


def _settings(folder: Path, **changes) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | changes))


def test_the_vlm_is_run_only_where_it_could_change_the_outcome(shallow):
    _settings(shallow, abstain_rule="likelier_word")
    short = load_detector(shallow, device="cpu")
    always = load_detector(shallow, device="cpu", short_circuit=False)
    episodes = [make_episode(seed=s) for s in range(24)]
    logits = np.array([m.logits for m in always.measure_batch(episodes)])
    for detector in (short, always):  # every head votes either way
        for block, column in zip(detector._fs_blocks, logits.T, strict=False):
            block.classifier[5].bias -= float(np.median(column))
    rows = []
    last = short._model.model.language_model.layers[2]
    last.register_forward_hook(lambda _m, args, _out: rows.append(len(args[0])))
    together = short.judge_batch(episodes)
    seen = set()
    for episode, judgement in zip(episodes, together, strict=True):
        full = always.judge(episode)
        assert (judgement.outcome, judgement.reason) == (full.outcome, full.reason)
        assert judgement.p_success == pytest.approx(full.p_success, abs=1e-5)
        agree = len({v.value for v in judgement.votes[:2]}) == 1
        assert (judgement.votes[2].value is VoteValue.NOT_RUN) == agree
        assert math.isnan(judgement.votes[2].p_success) == agree
        assert full.votes[2].value in (VoteValue.SUCCESS, VoteValue.FAIL)
        seen.add((agree, judgement.outcome))
    assert len(seen) == 4, "both cases, with both outcomes"
    disagreeing = sum(j.votes[2].value is not VoteValue.NOT_RUN for j in together)
    assert sum(rows) == disagreeing < len(episodes), "only these rows went on"


def test_a_vlm_that_can_outvote_everybody_is_always_run(shallow):
    _settings(shallow, vote_weights={"fs": [1.0, 1.0], "vlm": 2.5})
    detector = load_detector(shallow, device="cpu")
    for seed in range(8):
        assert detector.judge(make_episode(seed=seed)).votes[2].value is not VoteValue.NOT_RUN


def test_where_the_deepest_hook_is_the_last_layer_the_vlm_is_run(checkpoint):
    for judgement in load_detector(checkpoint, device="cpu").judge_batch(
        [make_episode(seed=s) for s in range(8)]
    ):
        assert judgement.votes[-1].value is not VoteValue.NOT_RUN


def test_out_of_memory_after_the_hooks_is_unknown_and_the_next_episode_works(shallow, monkeypatch):
    _settings(shallow, vote_weights={"fs": [1.0, 1.0], "vlm": 2.5})
    detector = load_detector(shallow, device="cpu")

    def fail(*_args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as broken:
        broken.setattr(StagedPass, "second", fail)
        for judgement in detector.judge_batch([make_episode(seed=s) for s in range(2)]):
            assert judgement.reason is Reason.DETECTOR_OUT_OF_MEMORY
    assert detector.judge(make_episode()).votes


def test_a_lost_device_is_told(shallow, monkeypatch):
    detector = load_detector(shallow, device="cpu")

    def fail(*_args):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(StagedPass, "first", fail)
    with pytest.raises(RuntimeError, match="illegal memory"):
        detector.judge(make_episode())
    assert detector.is_lost
    assert not has_lost_device(RuntimeError("CUDA error: out of memory"))
    assert not has_lost_device(RuntimeError("shapes do not match"))


def test_the_likelier_word_reads_its_rows_alone(checkpoint):
    """Never abstains, and computes no other word's logit."""
    _settings(checkpoint, abstain_rule="likelier_word")
    detector = load_detector(checkpoint, device="cpu")
    parts = load_checkpoint(checkpoint)
    vocabulary = parts.processor.tokenizer.get_vocab()
    ids = {
        w: [i for t, i in vocabulary.items() if t.replace("▁", " ").strip() == w]
        for w in ("success", "fail")
    }
    called = []
    detector._model.lm_head.register_forward_hook(lambda *_: called.append(1))
    values = set()
    for seed in range(12):
        episode = make_episode(seed=seed)
        vote = detector.judge(episode).votes[-1]
        inputs = encode_prompts(parts.processor, ["<image> evaluate en lift the red block"])
        pixels = encode_pictures(parts.processor, [_montage(episode)])
        with torch.no_grad():
            logits = one_pass(parts.model, inputs, [], pixel_values=pixels).logits[0]
        margin = logits[ids["success"]].max() - logits[ids["fail"]].max()
        assert vote.p_success == pytest.approx(torch.sigmoid(margin).item(), abs=1e-5)
        assert vote.value is (VoteValue.SUCCESS if margin > 0 else VoteValue.FAIL)
        values.add(vote.value)
    assert not called
    assert values <= {VoteValue.SUCCESS, VoteValue.FAIL}


def _montage(episode):
    return np.concatenate(
        [np.concatenate([k.views[row] for k in episode.keyframes], 1) for row in range(2)]
    )


# --- what a VLM that was not run means ------------------------------------------------------------


def _calibrated(scores: Scores):
    temperatures = Temperatures((2.0, 0.5), 3.0, 1.5)
    file = "calibration.safetensors"
    said = Calibration(
        "", "validation", len(scores.failures), len(scores.successes), temperatures, file, None
    )
    config = base_config(
        schema_version=3,
        hooked_layers=(0, 1),
        vote_weights=VoteWeights((1.0, 1.0), 1.5),
        calibration=said,
        files={file: ""},
    )
    return config, CalibrationData(scores, None)


@pytest.mark.parametrize("fs", [(2.0, 1.0), (-0.5, -3.0), (2.0, -1.0), (0.01, 0.02)])
@pytest.mark.parametrize("rates", [{}, {"max_missed_failures": 0.1, "max_false_alarms": 0.2}])
def test_a_calibrated_verdict_is_the_same_whether_the_vlm_was_run(fs, rates):
    scores = Scores(np.linspace(-2, 2, 19), np.linspace(-2, 1, 19))
    config, data = _calibrated(scores)
    decision = Decision(config, data, can_stop=True, **rates)
    answer = Answer(VoteValue.FAIL, 0.2, "fail", -1.4)
    logits = torch.tensor(fs)
    asked, behind = decision.judge(logits, answer, math.nan)
    if decision.wants_vlm(logits[None]):
        assert fs[0] * fs[1] < 0
        assert behind[2] == -1.4
        assert asked.votes[2].value is VoteValue.FAIL
        return
    stopped, without = decision.judge(logits, None, math.nan)
    assert (asked.outcome, asked.reason, asked.detail) == (
        stopped.outcome,
        stopped.reason,
        stopped.detail,
    )
    assert asked.p_success == pytest.approx(stopped.p_success, nan_ok=True)
    assert math.isnan(behind[2])
    assert math.isnan(without[2])
    assert stopped.votes[2].value is VoteValue.NOT_RUN
    assert asked.votes[2].value is VoteValue.FAIL, "what it said is still shown"
    assert asked.votes[2].p_success == pytest.approx(1 / (1 + math.exp(1.4 / 3.0)))


def test_without_layers_to_save_the_vlm_has_its_say():
    config, data = _calibrated(Scores(np.zeros(5), np.zeros(5)))
    decision = Decision(config, data, can_stop=False)
    assert decision.wants_vlm(torch.tensor([[1.0, 1.0], [1.0, -1.0]])) == [0, 1]
    answer = Answer(VoteValue.FAIL, 0.2, "fail", -1.4)
    judgement, behind = decision.judge(torch.tensor([2.0, 1.0]), answer, math.nan)
    assert behind[2] == -1.4
    assert judgement.votes[2].value is VoteValue.FAIL


def test_an_abstention_under_the_likelier_word_is_as_under_the_first_rule():
    """A detector of another kind (a baseline) may abstain whatever the rule."""
    vlm = Vote("vlm", VoteValue.ABSTAIN, math.nan, 2.0)
    blocks = [Vote("fs:0", VoteValue.SUCCESS, 0.8, 1.0), Vote("fs:1", VoteValue.FAIL, 0.4, 1.0)]
    assert arbitrate([*blocks, vlm], "likelier_word").reason is Reason.VLM_ABSTAINED
    alike = [blocks[0], replace(blocks[0], source="fs:1")]
    assert arbitrate([*alike, vlm], "likelier_word").outcome is Outcome.SUCCESS


# --- settings of the machine ----------------------------------------------------------------------


def test_padded_shapes_are_few():
    assert [padded_batch(n) for n in (1, 2, 3, 5, 16, 17)] == [1, 2, 4, 8, 16, 32]
    assert [padded_length(n, 300) for n in (1, 16, 17, 296, 300)] == [16, 16, 32, 300, 300]
    lengths = warm_lengths(256, 8192)
    assert lengths == [256, 272, 288, 304]
    assert all(padded_length(n, 8192) in lengths for n in range(256, 305))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"acceleration": "magic"}, "acceleration 'magic': must be none, compile, graphs"),
        ({"acceleration": "graphs"}, "graphs needs CUDA, not cpu"),
        ({"quantisation": "int3"}, "quantisation 'int3': must be none or int8"),
        (
            {"quantisation": "int8", "max_missed_failures": 0.1},
            "calibrated with the weights as they are",
        ),
    ],
)
def test_settings_that_cannot_be_had_are_one_line(checkpoint, settings, says):
    with pytest.raises(ConfigError, match=says):
        load_detector(checkpoint, device="cpu", **settings)


def test_a_compiler_that_fails_is_one_line(checkpoint, monkeypatch):
    def fail(*args):
        raise RuntimeError("cannot find -lgomp\ncollect2: error")

    monkeypatch.setattr("ifailsense_ros.model.stages.vision_features", fail)
    with pytest.raises(ConfigError, match=r"cannot find -lgomp .*use acceleration none") as raised:
        load_detector(checkpoint, device="cpu", acceleration="compile")
    assert "\n" not in str(raised.value)


def test_half_precision_on_a_cpu_is_for_large_models(checkpoint, monkeypatch):
    cpu = torch.device("cpu")
    assert not is_big(checkpoint)
    for able, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(device_module, "cpu_has_bfloat16", lambda able=able: able)
        assert choose_dtype("auto", cpu, big=True) is dtype
        assert choose_dtype("auto", cpu) is torch.float32
    assert choose_dtype("auto", torch.device("cuda")) is torch.bfloat16


@pytest.mark.slow
def test_compiled_layers_vote_the_same(shallow):
    import shutil

    if shutil.which("g++") is None:
        pytest.skip("compiling needs g++")
    plain = load_detector(shallow, device="cpu", short_circuit=False)
    fast = load_detector(shallow, device="cpu", short_circuit=False, acceleration="compile")
    texts = ("lift the red block", "open the drawer", "lift")
    episodes = [make_episode(texts[s % 3], seed=s) for s in range(5)]
    ours = fast.measure_batch(episodes)
    for measured, theirs in zip(ours, plain.measure_batch(episodes), strict=True):
        np.testing.assert_allclose(measured.logits, theirs.logits, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("acceleration", ["compile", "graphs"])
def test_accelerated_on_cuda_votes_the_same(shallow, acceleration):
    settings = {"device": "cuda", "dtype": "float32", "short_circuit": False}
    plain = load_detector(shallow, **settings)
    fast = load_detector(shallow, **settings, acceleration=acceleration)
    texts = ("lift the red block", "open the drawer", "lift")
    for s in range(6):  # alone, the same graph again and again
        episode = make_episode(texts[s % 3], seed=s)
        theirs = plain.measure_batch([episode])[0]
        ours = fast.measure_batch([episode])[0]
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-3)
    episodes = [make_episode(texts[s % 3], seed=s) for s in range(5)]
    for ours, theirs in zip(
        fast.measure_batch(episodes), plain.measure_batch(episodes), strict=True
    ):
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-3)


def test_eight_bits(checkpoint):
    pytest.importorskip("torchao")
    plain = load_detector(checkpoint, device="cpu")
    eight = load_detector(checkpoint, device="cpu", quantisation="int8")
    assert eight.model_id == f"{plain.model_id}+int8"
    assert isinstance(eight, FailSenseDetector)
    differing = 0
    for seed in range(20):
        a, b = (d.measure_batch([make_episode(seed=seed)])[0].logits[:3] for d in (plain, eight))
        assert np.abs(a - b).max() < 0.1
        differing += not np.array_equal(a, b)
    assert differing == 20, "it was rounded"
