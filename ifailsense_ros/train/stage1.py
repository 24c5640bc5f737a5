"""Stage 1: supervised fine-tuning to `success` and `fail` with LoRA (paper, Sec. IV-B.1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.core.prompt import build_prompt
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.model.vlm import encode_prompts
from ifailsense_ros.train import loop
from ifailsense_ros.train.compute import accelerator, amp
from ifailsense_ros.train.dataset import Drawn, TrainingSet
from ifailsense_ros.train.judge import AnswerProbe
from ifailsense_ros.train.loop import Schedule
from ifailsense_ros.train.losses import suffix_losses
from ifailsense_ros.train.packing import pack, packed_losses
from ifailsense_ros.train.recipes import Stage1

SUCCESS, FAIL = "success", "fail"


def with_adapter(model: PaliGemmaForConditionalGeneration, settings: Stage1) -> PeftModel:
    """The base with fresh LoRA adapters on its language model (and a projector to train)."""
    projector = ["multi_modal_projector"] if settings.train_projector else None
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.targets,
        modules_to_save=projector,
    )
    torch.manual_seed(settings.schedules[0].seed)
    tuned = get_peft_model(model, config)
    for p in tuned.parameters():
        if p.requires_grad:  # small steps vanish in bfloat16, which a large base is held in
            p.data = p.data.float()
    return tuned


def train_stage1(
    model: PeftModel,
    processor: PaliGemmaProcessor,
    train: TrainingSet,
    features: np.ndarray,
    probe: AnswerProbe,
    settings: Stage1,
    schedule: Schedule,
    prompt: str,
    ablation: Ablation,
    folder: Path,
) -> dict[str, float]:
    """Train the adapter in place: every montage with g* -> success, with a wrong g -> fail.

    Args:
        features: (len(train), n_img, d_vision) float16 of the frozen tower.
        probe: measures the answers on validation pairs.
        settings: `packed` is the layout of this schedule.
        schedule: one of the settings' schedules. An epoch is as many samples as the set gives, each
            expert once with each label; they are drawn at random, though.
        prompt: the checkpoint's template.
        folder: state and log of this stage.
    """

    experts = sum(not e.unfinished for e in train.experts)
    schedule = schedule.in_steps(
        2 * experts, 2 * settings.sampling.pictures, accelerator().num_processes
    )

    def asked_about(drawn: Drawn) -> list[tuple[str, str]]:
        return [
            (build_prompt(ablation.text(text), prompt), answer)
            for texts, answer in ((drawn.right, SUCCESS), (drawn.wrong, FAIL))
            for text in texts
        ]

    def loss_of_batch(number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((schedule.seed, number))
        if settings.packed:
            drawn = train.draw_questions(rng, settings.sampling, settings.packed)
            inputs = pack(processor, [asked_about(d) for d in drawn])
            pictures = torch.from_numpy(features[[d.index for d in drawn]].astype(np.float32))
            with amp():
                losses, *_ = packed_losses(model, inputs, pictures)
            return {"loss": losses.mean()}
        drawn = train.draw(rng, settings.sampling)
        asked = [(d.index, *question) for d in drawn for question in asked_about(d)]
        indices, prompts, answers = zip(*asked, strict=True)
        inputs = encode_prompts(processor, prompts, answers)
        pictures = torch.from_numpy(features[list(indices)].astype(np.float32))
        with amp():
            losses, _ = suffix_losses(model, inputs, pictures)
        return {"loss": losses.mean()}

    return loop.run(
        [model],
        loss_of_batch,
        lambda: probe.measure(
            model, prompt, (SUCCESS, FAIL), ablation, packed=settings.packed is not None
        ),
        schedule,
        folder,
        better="accuracy",
    )
