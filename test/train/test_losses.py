import numpy as np
import pytest
import torch
from torch.nn import functional

from ifailsense_ros.model.tiny import build_tiny
from ifailsense_ros.model.vlm import encode_pictures, encode_prompts, vision_features
from ifailsense_ros.train.losses import decision_loss, suffix_logits

PROMPTS = ["<image> evaluate en lift the red block", "<image> caption en"]
SUFFIXES = ["success", "push the blue block to the left"]
PICTURE = (28, 56)


def test_losses_in_a_padded_batch_are_the_models_own_one_by_one():
    model, processor = build_tiny([*PROMPTS, *SUFFIXES], PICTURE, intermediate_size=64)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (2, *PICTURE, 3), dtype=np.uint8)
    with torch.no_grad():
        features = vision_features(model, encode_pictures(processor, list(pictures)))
        inputs = encode_prompts(processor, PROMPTS, SUFFIXES)
        logits, tokens = suffix_logits(model, inputs, features)
        losses = functional.cross_entropy(logits, tokens, reduction="none")
        ends = tokens.tolist().index(processor.tokenizer.eos_token_id) + 1
        for i, part in enumerate((losses[:ends], losses[ends:])):
            alone = processor(
                images=pictures[i], text=PROMPTS[i], suffix=SUFFIXES[i], return_tensors="np"
            )
            own = model(**{k: torch.as_tensor(np.asarray(v)) for k, v in alone.items()})
            assert torch.allclose(part.mean(), own.loss, atol=1e-4)


def test_the_decision_is_between_the_two_words_wherever_they_are_the_answer():
    logits = torch.tensor([[0.0, 1.0, 9.0, 3.0], [0.0, 1.0, 9.0, 3.0], [5.0, 0.0, 0.0, 0.0]])
    loss = decision_loss(logits, torch.tensor([1, 3, 0]), (1, 3))  # the last says neither
    expected = [np.log1p(np.exp(2.0)), np.log1p(np.exp(-2.0))]
    assert loss.item() == pytest.approx(np.mean(expected))
    other = logits.clone()
    other[:, 2] = -9.0  # what all other words have is nothing to it
    assert decision_loss(other, torch.tensor([1, 3, 0]), (1, 3)) == loss
