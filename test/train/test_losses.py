import numpy as np
import torch

from ifailsense_ros.model.tiny import build_tiny
from ifailsense_ros.model.vlm import encode_pictures, encode_prompts, vision_features
from ifailsense_ros.train.losses import suffix_losses

PROMPTS = ["<image> evaluate en lift the red block", "<image> caption en"]
SUFFIXES = ["success", "push the blue block to the left"]
PICTURE = (28, 56)


def test_losses_in_a_padded_batch_are_the_models_own_one_by_one():
    model, processor = build_tiny([*PROMPTS, *SUFFIXES], PICTURE, intermediate_size=64)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (2, *PICTURE, 3), dtype=np.uint8)
    with torch.no_grad():
        features = vision_features(model, encode_pictures(processor, list(pictures)))
        losses, rows = suffix_losses(model, encode_prompts(processor, PROMPTS, SUFFIXES), features)
        for i in range(2):
            alone = processor(
                images=pictures[i], text=PROMPTS[i], suffix=SUFFIXES[i], return_tensors="np"
            )
            own = model(**{k: torch.as_tensor(np.asarray(v)) for k, v in alone.items()})
            assert torch.allclose(losses[rows == i].mean(), own.loss, atol=1e-4)
