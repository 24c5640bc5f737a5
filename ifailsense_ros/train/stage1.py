"""Stage 1: supervised fine-tuning to `success` and `fail` with LoRA (paper, Sec. IV-B.1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.core.prompt import build_prompt
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.model.vlm import encode_prompts, first_tokens
from ifailsense_ros.train import loop
from ifailsense_ros.train.compute import accelerator, amp
from ifailsense_ros.train.dataset import Drawn, TrainingSet
from ifailsense_ros.train.frames import framed
from ifailsense_ros.train.judge import AnswerProbe
from ifailsense_ros.train.losses import decision_loss, suffix_logits
from ifailsense_ros.train.packing import pack, packed_logits
from ifailsense_ros.train.settings import Phase, Stage1

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
    torch.manual_seed(settings.phases[0].schedule.seed)
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
    phase: Phase,
    prompt: str,
    ablation: Ablation,
    folder: Path,
) -> dict[str, float]:
    """Train the adapter in place: every montage with g* -> success, with a wrong g -> fail.

    Args:
        features: (len(train), n_img, d_vision) float16 of the frozen tower.
        probe: measures the answers on validation pairs.
        phase: one of the settings' phases. An epoch is as many samples as the set gives, each
            expert once with each label; they are drawn at random, though.
        prompt: the checkpoint's template.
        folder: state and log of this stage.
    """
    words = first_tokens(processor.tokenizer, (SUCCESS, FAIL))
    experts = sum(not e.unfinished for e in train.experts)
    schedule = phase.schedule.in_steps(
        2 * experts, 2 * settings.sampling.pictures, accelerator().num_processes
    )

    def asked_about(drawn: Drawn, rng: np.random.Generator) -> list[tuple[str, str]]:
        return [
            (build_prompt(ablation.text(framed(text, settings.framed, rng)), prompt), answer)
            for texts, answer in ((drawn.right, SUCCESS), (drawn.wrong, FAIL))
            for text in texts
        ]

    def predicted(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and tokens of a batch's answers."""
        if phase.packed:
            drawn = train.draw_questions(rng, settings.sampling, phase.packed)
            inputs = pack(processor, [asked_about(d, rng) for d in drawn])
            pictures = torch.from_numpy(features[[d.index for d in drawn]].astype(np.float32))
            return packed_logits(model, inputs, pictures)[:2]
        drawn = train.draw(rng, settings.sampling)
        asked = [(d.index, *question) for d in drawn for question in asked_about(d, rng)]
        indices, prompts, answers = zip(*asked, strict=True)
        inputs = encode_prompts(processor, prompts, answers)
        pictures = torch.from_numpy(features[list(indices)].astype(np.float32))
        return suffix_logits(model, inputs, pictures)

    def loss_of_batch(number: int) -> dict[str, torch.Tensor]:
        with amp():
            logits, tokens = predicted(np.random.default_rng((schedule.seed, number)))
            losses = {
                "token_loss": functional.cross_entropy(logits, tokens),
                "decision_loss": decision_loss(logits, tokens, words),
            }
        loss = phase.tokens * losses["token_loss"] + phase.decision * losses["decision_loss"]
        return {"loss": loss, **losses}

    return loop.run(
        [model],
        loss_of_batch,
        lambda: probe.measure(
            model, prompt, (SUCCESS, FAIL), ablation, packed=phase.packed is not None
        ),
        schedule,
        folder,
        better="accuracy",
    )
