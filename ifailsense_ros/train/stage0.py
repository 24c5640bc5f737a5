"""Stage 0: a small base VLM, from captions of what was done, and questions about it and the scene.

Only for bases made here. A base from a hub has had its pre-training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.core.montage import MontageGeometry
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.model.vlm import encode_prompts
from ifailsense_ros.train import loop
from ifailsense_ros.train.compute import amp
from ifailsense_ros.train.dataset import Drawn, TrainingSet
from ifailsense_ros.train.frames import framed
from ifailsense_ros.train.judge import AnswerProbe
from ifailsense_ros.train.losses import suffix_logits
from ifailsense_ros.train.packing import pack, packed_logits
from ifailsense_ros.train.settings import QUESTION, Stage0
from ifailsense_ros.train.views import MONTAGE, shown_features, tokens_of_view

CAPTION = "<image> caption en"
SCENE = "<image> answer en {question}"
YES, NO = "yes", "no"
_WEIGHTS = {"caption_loss": 1.0, "scene_loss": 2.0, "answer_loss": 2.0}


def train_stage0(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    train: TrainingSet,
    features: np.ndarray,
    probe: AnswerProbe,
    settings: Stage0,
    ablation: Ablation,
    geometry: MontageGeometry,
    folder: Path,
) -> dict[str, float]:
    """Train projector and language model in place; the frozen tower's features are given.

    Args:
        features: (len(train), n_img, d_vision) float16.
        probe: measures the answers on validation pairs, in the layout that is trained, and on the
            first of the views.
        geometry: of the montage that the tower saw.
        folder: state and log of this stage.
    """
    model.requires_grad_(True)
    model.model.vision_tower.requires_grad_(False)
    views = [None if v == MONTAGE else tokens_of_view(v, geometry) for v in settings.views]

    def packed(rng: np.random.Generator, shown: np.ndarray | None) -> dict[str, torch.Tensor]:
        drawn = train.draw_questions(rng, settings.sampling, settings.packed)
        rows = [
            [*_caption(d), *_about_scene(d), *_questions(d, ablation, settings, rng)] for d in drawn
        ]
        pictures = torch.from_numpy(shown_features(features, [d.index for d in drawn], shown))
        with amp():
            batch = pack(processor, rows, shown)
            logits, tokens, row, number = packed_logits(model, batch, pictures)
            losses = functional.cross_entropy(logits, tokens, reduction="none")
        captions = torch.tensor([len(_caption(d)) for d in drawn])[row]
        scenes = captions + torch.tensor([len(d.scene) for d in drawn])[row]
        parts = {"caption_loss": number < captions, "answer_loss": number >= scenes}
        if settings.packed.scene:
            parts["scene_loss"] = (number >= captions) & (number < scenes)
        means = {
            # A step may see nothing but unfinished episodes, of which there is no caption.
            name: losses[part.to(losses.device)].mean() if part.any() else losses.new_zeros(())
            for name, part in parts.items()
        }
        return {"loss": sum(_WEIGHTS[name] * mean for name, mean in means.items()), **means}

    def plain(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        drawn = train.draw(rng, settings.sampling)
        asked = [(d.index, *q) for d in drawn for q in _questions(d, ablation, settings, rng)]
        indices, prompts, answers = zip(*asked, strict=True)
        inputs = encode_prompts(processor, prompts, answers)
        pictures = torch.from_numpy(features[list(indices)].astype(np.float32))
        with amp():
            loss = functional.cross_entropy(*suffix_logits(model, inputs, pictures))
        return {"loss": loss}

    def loss_of_batch(number: int) -> dict[str, torch.Tensor]:
        seed, together = settings.schedule.seed, settings.schedule.accumulate
        rng = np.random.default_rng((seed, number))
        if not settings.packed:
            return plain(rng)
        # One view a step: processes that share it would wait for the one with the larger view.
        step = np.random.default_rng((seed, number // together, together))
        return packed(rng, views[step.integers(len(views))])

    return loop.run(
        [model],
        loss_of_batch,
        lambda: probe.measure(
            model,
            QUESTION,
            (YES, NO),
            ablation,
            packed=settings.packed is not None,
            shown=views[0],
        ),
        settings.schedule,
        folder,
        better="accuracy",
    )


def _caption(drawn: Drawn) -> list[tuple[str, str]]:
    """What was done; of an episode in which nothing was, there is nothing to say."""
    return [(CAPTION, drawn.right[0])] if drawn.right else []


def _about_scene(drawn: Drawn) -> list[tuple[str, str]]:
    return [(SCENE.format(question=question), answer) for question, answer in drawn.scene]


def _questions(
    drawn: Drawn, ablation: Ablation, settings: Stage0, rng: np.random.Generator
) -> list[tuple[str, str]]:
    templates = settings.templates
    asked = [(text, YES) for text in drawn.right] + [(text, NO) for text in drawn.wrong]
    chosen = rng.integers(len(templates), size=len(asked))
    return [
        (
            templates[i].format(instruction=ablation.text(framed(text, settings.framed, rng))),
            answer,
        )
        for i, (text, answer) in zip(chosen, asked, strict=True)
    ]
