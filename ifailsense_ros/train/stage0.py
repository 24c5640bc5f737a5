"""Stage 0: a small base VLM, from captions of what was done and yes/no questions about it.

Only for bases made here. A base from a hub has had its pre-training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.model.vlm import encode_prompts
from ifailsense_ros.train import loop
from ifailsense_ros.train.dataset import TrainingSet
from ifailsense_ros.train.features import amp
from ifailsense_ros.train.judge import AnswerProbe
from ifailsense_ros.train.losses import suffix_losses
from ifailsense_ros.train.recipes import Stage0

CAPTION = "<image> caption en"
QUESTION = "<image> answer en did the robot {instruction}?"
YES, NO = "yes", "no"


def train_stage0(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    train: TrainingSet,
    features: np.ndarray,
    probe: AnswerProbe,
    settings: Stage0,
    ablation: Ablation,
    folder: Path,
) -> dict[str, float]:
    """Train projector and language model in place; the frozen tower's features are given.

    Args:
        features: (len(train), n_img, d_vision) float16.
        probe: measures the answers on validation pairs.
        folder: state and log of this stage.
    """
    model.requires_grad_(True)
    model.model.vision_tower.requires_grad_(False)

    per_picture = 3 if settings.captions else 2

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((settings.schedule.seed, step))
        drawn = train.draw(rng, settings.sampling)
        prompts, answers = [], []
        for _, right, wrong in drawn:
            if settings.captions:
                prompts.append(CAPTION)
                answers.append(right)
            prompts += [QUESTION.format(instruction=ablation.text(t)) for t in (right, wrong)]
            answers += [YES, NO]
        inputs = encode_prompts(processor, prompts, answers)
        pictures = torch.from_numpy(features[[i for i, *_ in drawn]].astype(np.float32))
        with amp():
            losses, rows = suffix_losses(model, inputs, pictures.repeat_interleave(per_picture, 0))
        if not settings.captions:
            return {"loss": 2 * losses.mean(), "answer_loss": losses.mean()}
        is_caption = rows % per_picture == 0
        caption, answer = losses[is_caption].mean(), losses[~is_caption].mean()
        return {"loss": caption + 2 * answer, "caption_loss": caption, "answer_loss": answer}

    return loop.run(
        [model],
        loss_of_step,
        lambda: probe.measure(model, QUESTION, (YES, NO), ablation),
        settings.schedule,
        folder,
        better="accuracy",
    )
