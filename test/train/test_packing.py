"""Packed questions answer as if each stood alone behind its montage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.smf import Sample
from ifailsense_ros.model.attention import use_fused_attention
from ifailsense_ros.model.tiny import build_tiny
from ifailsense_ros.model.vlm import IGNORED_LABEL
from ifailsense_ros.train.dataset import Drawn
from ifailsense_ros.train.frames import FRAMES
from ifailsense_ros.train.judge import AnswerProbe
from ifailsense_ros.train.packing import pack, packed_answers, packed_logits
from ifailsense_ros.train.schedule import Schedule
from ifailsense_ros.train.settings import QUESTION, WORDINGS, Stage0
from ifailsense_ros.train.stage0 import _questions

ROWS = [
    [
        ("<image> caption en", "lift the red block"),
        ("<image> answer en did the robot push it?", "yes"),
        ("<image> answer en did the robot lift the red block?", "no"),
    ],
    [("<image> answer en did the robot push it?", "no")],
]


@pytest.fixture(scope="module")
def tiny():
    texts = ["caption en lift the red block", "answer en did the robot push it?"]
    model, processor = build_tiny(texts, (28, 28), intermediate_size=32)
    use_fused_attention(model.model.language_model)
    return model, processor


@pytest.fixture(scope="module")
def features(tiny):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, tiny[1].image_seq_length, 384, generator=generator)


def losses_of(model, packed, pictures):
    """Of every answer token, its row, and its question within the row."""
    logits, tokens, rows, questions = packed_logits(model, packed, pictures)
    return functional.cross_entropy(logits, tokens, reduction="none"), rows, questions


def test_a_question_sees_its_montage_and_no_other_question(tiny, features):
    model, processor = tiny
    with torch.no_grad():
        losses, rows, numbers = losses_of(model, pack(processor, ROWS), features)
        for i, row in enumerate(ROWS):
            for j, question in enumerate(row):
                alone, *_ = losses_of(model, pack(processor, [[question]]), features[i : i + 1])
                assert torch.allclose(alone, losses[(rows == i) & (numbers == j)], atol=1e-4)
        other = [[*ROWS[0][:2], ("<image> answer en did the robot lift it?", "yes")], ROWS[1]]
        changed, *_ = losses_of(model, pack(processor, other), features)
    same = (rows == 1) | (numbers < 2)
    assert torch.allclose(losses[same], changed[same], atol=1e-4)


def test_what_is_not_shown_is_not_seen_and_what_is_keeps_its_place(tiny, features):
    model, processor = tiny
    count = processor.image_seq_length
    with torch.no_grad():
        whole = packed_answers(model, pack(processor, ROWS), features)
        same = packed_answers(model, pack(processor, ROWS, np.arange(count)), features)
        assert torch.equal(whole, same)
        shown = np.array([0, 2, 3])
        packed = pack(processor, ROWS, shown)
        assert packed.position_ids[0, :3].tolist() == [1, 3, 4]
        part = packed_answers(model, packed, features[:, shown])
        hidden = features.clone()
        hidden[:, 1] += 9
        assert torch.equal(part, packed_answers(model, packed, hidden[:, shown]))
    first = packed.position_ids[0][packed.question[0] == 0][0]
    assert first == count + 1
    assert not torch.allclose(part, whole, atol=1e-3)


def test_labels_are_the_answers_with_their_ends(tiny):
    _, processor = tiny
    packed = pack(processor, ROWS)
    said = packed.labels[0][packed.labels[0] != IGNORED_LABEL]
    assert processor.tokenizer.decode(said) == "lift the red block<eos>yes<eos>no<eos>"
    first = packed.position_ids[0][packed.question[0] == 0][0]
    assert all(packed.position_ids[0][packed.question[0] == n][0] == first for n in (1, 2))
    assert not packed.mask[1, 0, :, packed.question[1] == -1][:, processor.image_seq_length :].any()


def test_answers_are_read_where_the_first_answer_token_is_learned(tiny, features):
    model, processor = tiny
    with torch.no_grad():
        logits = packed_answers(model, pack(processor, ROWS), features)
        losses, rows, numbers = losses_of(model, pack(processor, ROWS), features)
    ids = [processor.tokenizer.encode(w, add_special_tokens=False)[0] for w in ("yes", "no", "no")]
    for place, (i, j) in enumerate(((0, 1), (0, 2), (1, 0)), start=1):
        first = losses[(rows == i) & (numbers == j)][0]
        loss = -logits[place].log_softmax(0)[ids[place - 1]]
        assert loss.item() == pytest.approx(first.item(), abs=1e-4)


def test_the_probe_gives_each_sample_its_own_margin(tiny, features):
    model, processor = tiny
    texts = ["push it", "lift the red block", "lift it"]
    samples = [Sample(i, text, i == 0, "t", "c") for text, i in zip(texts, (1, 0, 1), strict=True)]
    probe = AnswerProbe(processor, samples, features.numpy().astype(np.float16))
    margins = probe.margins(
        model, "<image> answer en did the robot {instruction}?", ("yes", "no"), Ablation(),
        packed=True,
    )  # fmt: skip
    for sample, margin in zip(samples, margins, strict=True):
        alone = AnswerProbe(processor, [sample], features.numpy().astype(np.float16))
        (one,) = alone.margins(
            model, "<image> answer en did the robot {instruction}?", ("yes", "no"), Ablation(),
            packed=True,
        )  # fmt: skip
        assert margin == pytest.approx(one, abs=2e-2)  # bfloat16 where the processor has it


def test_questions_are_worded_by_the_templates_and_answered_by_the_episode():
    drawn = Drawn(0, right=("lift it", "raise it"), wrong=("push it",))
    settings = Stage0(Schedule(1, 1e-3), templates=WORDINGS)
    asked = _questions(drawn, Ablation(), settings, np.random.default_rng(0))
    assert [answer for _, answer in asked] == ["yes", "yes", "no"]
    for (prompt, _), text in zip(asked, ("lift it", "raise it", "push it"), strict=True):
        assert prompt in {w.format(instruction=text) for w in WORDINGS}
    many = Drawn(0, right=("lift it",) * 100, wrong=())
    seen = {p for p, _ in _questions(many, Ablation(), settings, np.random.default_rng(0))}
    assert len(seen) == len(WORDINGS)
    assert not any(
        word in prompt for prompt in WORDINGS for word in ("evaluate", "success", "fail")
    )


def test_a_share_of_the_questions_is_put_in_a_frame_and_the_word_in_blind_ones_is_not_heard():
    settings = Stage0(Schedule(1, 1e-3), framed=0.3)
    many = Drawn(0, right=("lift it",) * 400, wrong=())
    asked = [p for p, _ in _questions(many, Ablation(), settings, np.random.default_rng(0))]
    bare = QUESTION.format(instruction="lift it")
    assert 90 <= sum(p != bare for p in asked) <= 150
    assert {p for p in asked if p != bare} == {
        QUESTION.format(instruction=f.format(instruction="lift it")) for f in FRAMES
    }
    blind = Ablation("instruction_blind")
    told = _questions(many, blind, settings, np.random.default_rng(0))
    assert len({p for p, _ in told}) == 1
