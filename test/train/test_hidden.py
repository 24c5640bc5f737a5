"""Hidden states are computed once, and never taken for those of something else."""

import numpy as np
import pytest
import torch
from tiny_runs import build_model

from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.smf import Sample
from ifailsense_ros.model.vlm import encode_prompts, one_pass
from ifailsense_ros.train import hidden
from ifailsense_ros.train.compute import amp
from ifailsense_ros.train.features import Rows
from ifailsense_ros.train.hidden import Collector

PROMPT = "<image> evaluate en {instruction}"
SAMPLES = [
    Sample(i % 3, text, i % 2 == 0, "task", "lifting")
    for i, text in enumerate(["lift the red block", "open the drawer", "lift the red block"] * 2)
]


@pytest.fixture
def vlm():
    return build_model("dinov2")


@pytest.fixture
def features(vlm):
    _, processor = vlm
    shape = (2, processor.image_seq_length, 24)
    rng = np.random.default_rng(0)
    return Rows([rng.normal(size=shape).astype(np.float16) for _ in range(2)])


@pytest.fixture
def collect(vlm, features, tmp_path, monkeypatch):
    """Collects with some settings changed; `.passes` counts the forward passes."""

    def counted(*args, **kwargs):
        collecting.passes += 1
        return one_pass(*args, **kwargs)

    def collecting(
        layers=(0, 2), prompt=PROMPT, samples=SAMPLES, data="a", shown="none", words=("lift", "red")
    ):
        model, processor = vlm
        made = Collector(model, processor, layers, prompt, words, Ablation(shown), tmp_path)
        collecting.passes = 0
        return made.collect(samples, features, data)

    monkeypatch.setattr(hidden, "one_pass", counted)
    monkeypatch.setattr(hidden, "PIECE", 4)
    return collecting


def test_states_are_those_of_a_forward_pass_over_each_sample(collect, vlm, features):
    model, processor = vlm
    data = collect()
    states, mask = data.batch(np.arange(len(SAMPLES)))
    answers = [processor.tokenizer.encode(w, add_special_tokens=False)[0] for w in ("lift", "red")]
    for i, sample in enumerate(SAMPLES):
        inputs = encode_prompts(processor, [PROMPT.format(instruction=sample.instruction)])
        picture = torch.from_numpy(features[[sample.index]].astype(np.float32))
        with torch.no_grad(), amp():
            out = one_pass(model, inputs, (0, 2), features=picture)
        assert int(mask[i].sum()) == out.mask.sum()
        for k in (0, 1):
            assert torch.allclose(states[k][i][mask[i]], out.hidden[k][0].float(), atol=0.1)
        wanted = out.logits[0, answers[0]] - out.logits[0, answers[1]]
        assert float(wanted) == pytest.approx(data.vlm[i], abs=0.1)
    assert data.labels.tolist() == [s.success for s in SAMPLES]


def test_a_second_time_is_read_and_not_computed_and_a_lost_piece_is_made_again(collect, tmp_path):
    first = collect()
    assert collect.passes == 2  # pieces of 4 and 2
    second = collect()
    assert collect.passes == 0
    assert np.array_equal(first.states[range(6)], second.states[range(6)])
    assert np.array_equal(first.vlm, second.vlm)
    (piece,) = tmp_path.glob("*/0001.npy")
    before = np.array(first.states[range(6)])
    piece.unlink()  # as if the run had been killed
    assert np.array_equal(collect().states[range(6)], before)
    assert collect.passes == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"layers": (0, 1)},
        {"prompt": "<image> answer en {instruction}"},
        {"samples": SAMPLES[1:]},
        {"data": "b"},
        {"shown": "instruction_blind"},
        {"words": ("red", "lift")},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_states_of_other_settings_are_computed_anew(collect, changed):
    collect()
    collect(**changed)
    assert collect.passes > 0


def test_states_of_other_weights_are_computed_anew(collect, vlm):
    collect()
    with torch.no_grad():
        vlm[0].model.language_model.layers[0].self_attn.q_proj.weight[0, 0] += 1e-6
    collect()
    assert collect.passes == 2
