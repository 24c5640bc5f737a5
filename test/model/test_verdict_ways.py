"""Three ways to a verdict agree: the straightforward one, the authors' manner, and ours.

A random VLM never says `success` or `fail`, and random heads may all vote alike: both would prove
nothing. So thresholds and the rows of the two answer words are set, on the episodes themselves, so
that every voter gives each answer at least a fifth of the time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from benchmarks import verdict_models as models
from benchmarks.verdict_ways import Said, Unmerged
from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.core.prompt import build_prompt
from ifailsense_ros.core.verdict import VoteValue
from ifailsense_ros.model.detector import FailSenseDetector
from ifailsense_ros.model.stages import Stages
from ifailsense_ros.model.vlm import AnswerReader, encode_prompts

EPISODES = 200
TEXTS = ("lift the red block", "carry it to the left", "leave the pink block in front of the lamp")
LAYERS = {"last": (1, 2, 3), "below": (0, 1, 2)}


@dataclass(frozen=True)
class Numbers:
    """What the voters' thresholds are set to: FS biases, and rows of `success` and `fail`."""

    biases: tuple[float, float, float]
    rows: torch.Tensor


def _episodes(config):
    """Dark and bright ones, so that most are far from a threshold, as with a trained detector."""
    rng = np.random.default_rng(5)
    found = []
    for seed in range(EPISODES):
        episode = models.episode_of(config, seed, TEXTS[seed % len(TEXTS)])
        shade, spread = (0, 0.3) if rng.random() < 0.5 else (178, 0.3)
        frames = tuple(
            replace(k, views=tuple((v * spread + shade).astype(np.uint8) for v in k.views))
            for k in episode.keyframes
        )
        found.append(replace(episode, keyframes=frames))
    return found


def _middle(values: np.ndarray) -> float:
    """The middle of the widest gap that leaves a quarter on either side."""
    ordered = np.sort(values)
    n = len(ordered)
    inner = ordered[n // 4 : n - n // 4]
    at = int(np.argmax(np.diff(inner)))
    return float(inner[at : at + 2].mean())


def _unmerged(layers, dtype, numbers: Numbers | None) -> Unmerged:
    model, processor = models.build("test", dtype)
    biases = (0.0, 0.0, 0.0) if numbers is None else numbers.biases
    if numbers is not None:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone(), False)
        model.lm_head.weight[_words(processor)] = numbers.rows.to(dtype)
    config = models.settings_of("test", layers)
    blocks = models.blocks_of("test", 32, biases)
    wrapped = models.with_adapter(model, "test")
    return Unmerged(wrapped, processor, config, blocks, new_tokens=1)


def _words(processor) -> list[int]:
    ids = processor.tokenizer.convert_tokens_to_ids(["success", "fail"])
    assert [processor.tokenizer.decode([i]) for i in ids] == ["success", "fail"]
    return ids


@torch.no_grad()
def _numbers(layers) -> Numbers:
    way = _unmerged(layers, torch.float32, None)
    states = []
    norm = way.model.get_base_model().model.language_model.norm
    norm.register_forward_hook(lambda _m, _a, out: states.append(out[0, -1]))
    said = [way.authors(e) for e in _episodes(way.config)]
    fs = torch.stack([s.fs for s in said]).numpy()
    h = torch.stack(states).double()
    mean = h.mean(0)
    axis = torch.linalg.svd(h - mean, full_matrices=False).Vh[0]
    axis = axis - mean * (axis @ mean) / (mean @ mean)  # the mean itself says nothing
    along = h @ axis
    middle = _middle(along.numpy())
    unit = mean / (mean @ mean)  # its product with any of the states is near 1
    difference = (axis - middle * unit) * 8 / along.std()
    rows = torch.stack([14 * unit + difference / 2, 14 * unit - difference / 2])
    return Numbers(tuple(-_middle(column) for column in fs.T), rows.float())


def _votes(said: list[Said], reader: AnswerReader) -> np.ndarray:
    """(n, 4) numbers of `VoteValue`."""
    fs = torch.stack([s.fs for s in said]).float() > 0
    vlm = [answer.value for answer in reader.read(torch.stack([s.vlm for s in said]))]
    return np.column_stack([fs.numpy().astype(int), np.array(vlm, int)])


@torch.no_grad()
def _three_ways(layers, dtype, numbers):
    """What each way says of all episodes: (a), (b), (c), (c) in batches; and (c)'s detector."""
    way = _unmerged(layers, dtype, numbers)
    episodes = _episodes(way.config)
    straightforward = [way.straightforward(e) for e in episodes]
    authors = [way.authors(e) for e in episodes]
    plain = way.model.merge_and_unload()
    loaded = models.loaded(plain, way.processor, way.config, way.blocks)
    stages = Stages(loaded)
    m = way.config.montage
    geometry = MontageGeometry(m.num_pov, m.num_keyframes, m.cell_height, m.cell_width)

    def ours(some):
        prompts = [build_prompt(e.instruction, way.config.prompt) for e in some]
        out = stages.run(
            encode_prompts(way.processor, prompts), [compose(e, geometry) for e in some], None
        )
        return [Said(fs, vlm) for fs, vlm in zip(out.fs, out.vlm, strict=True)]

    alone = [said for e in episodes for said in ours([e])]
    batches = [said for i in range(0, EPISODES, 16) for said in ours(episodes[i : i + 16])]
    return (straightforward, authors, alone, batches), FailSenseDetector(loaded), episodes


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("deepest", LAYERS)
def test_three_ways_agree(deepest):
    layers = LAYERS[deepest]
    numbers = _numbers(layers)
    ways, detector, episodes = _three_ways(layers, torch.float32, numbers)
    words = _words(detector._processor)
    reader = AnswerReader(detector._processor.tokenizer, detector.config.answer_words)
    votes = [_votes(said, reader) for said in ways]
    for column in votes[0].T:
        for value in (VoteValue.FAIL, VoteValue.SUCCESS):
            assert (column == value).mean() >= 0.2
    for said in ways[1:]:
        for ours, theirs in zip(said, ways[0], strict=True):
            torch.testing.assert_close(ours.fs, theirs.fs, atol=1e-4, rtol=0)
            torch.testing.assert_close(ours.vlm[words], theirs.vlm[words], atol=1e-4, rtol=0)
    for theirs in votes[1:]:
        assert np.array_equal(theirs, votes[0])
    not_run = 0
    for judgement, theirs in zip(detector.judge_batch(episodes), votes[0], strict=True):
        ours = np.array([v.value for v in judgement.votes], int)
        agree = len(set(theirs[:3])) == 1 and deepest == "below"
        not_run += agree
        expected = [*theirs[:3], VoteValue.NOT_RUN] if agree else theirs
        assert np.array_equal(ours, expected)
    assert (not_run > 0) == (deepest == "below")
    halves, _, _ = _three_ways(layers, torch.bfloat16, numbers)
    for said in halves:
        differing = _votes(said, reader) != _votes(halves[0], reader)
        assert differing.mean() <= 0.01
