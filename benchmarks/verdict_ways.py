"""Three ways to a verdict's logits: (a) straightforward, (b) the authors' manner, (c) ours.

(a) and (b) are written as one would write them with transformers and peft at hand, by the models'
own forward and the real processor.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from peft import PeftModel
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.core.prompt import build_prompt
from ifailsense_ros.model.fs_block import FSBlocks
from ifailsense_ros.model.vlm import base_of


@dataclass(frozen=True, eq=False)
class Said:
    """What the voters said of one episode: logits (K,) of the FS blocks and (V,) of the VLM."""

    fs: torch.Tensor
    vlm: torch.Tensor


@dataclass
class Unmerged:
    """Ways (a) and (b): the base with its adapter beside it.

    Attributes:
        model: base and adapter; or the base alone, for what the adapter costs.
        new_tokens: that (a) lets the VLM say.
        steps: process time after each token of the last `generate`, seconds since it began.
    """

    model: PeftModel | PaliGemmaForConditionalGeneration
    processor: PaliGemmaProcessor
    config: CheckpointConfig
    blocks: FSBlocks
    new_tokens: int = 5
    steps: list[float] = field(default_factory=list)

    @torch.inference_mode()
    def straightforward(self, episode: Episode) -> Said:
        """(a): `generate` for the answer, then a second pass with hooks, logits at every position.

        The answer's logits are those of `generate`'s first token.
        """
        inputs = self._inputs(episode)
        began = time.process_time()
        self.steps = []
        answer = self.model.generate(
            **inputs,
            max_new_tokens=self.new_tokens,
            min_new_tokens=self.new_tokens,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            stopping_criteria=StoppingCriteriaList([_Clock(began, self.steps)]),
        )
        fs, _ = self._hooked(inputs)
        return Said(fs, answer.logits[0][0].float().cpu())

    @torch.inference_mode()
    def authors(self, episode: Episode) -> Said:
        """(b): one forward pass with hooks, logits at every position, the last one read."""
        fs, logits = self._hooked(self._inputs(episode))
        return Said(fs, logits[0, -1].float().cpu())

    def _inputs(self, episode: Episode) -> dict[str, torch.Tensor]:
        m = self.config.montage
        geometry = MontageGeometry(m.num_pov, m.num_keyframes, m.cell_height, m.cell_width)
        batch = self.processor(
            images=compose(episode, geometry),
            text=build_prompt(episode.instruction, self.config.prompt),
            return_tensors="pt",
        )
        device = next(self.model.parameters()).device
        batch.pop("labels", None)
        batch["pixel_values"] = batch["pixel_values"].to(self.model.dtype)
        return {k: v.to(device) for k, v in batch.items()}

    def _hooked(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        layers = base_of(self.model).model.language_model.layers
        seen: dict[int, torch.Tensor] = {}
        handles = [
            layers[i].register_forward_hook(
                lambda _m, _a, out, i=i: seen.update({i: out[0] if isinstance(out, tuple) else out})
            )
            for i in self.config.hooked_layers
        ]
        try:
            logits = self.model(**inputs).logits
        finally:
            for handle in handles:
                handle.remove()
        fs = self.blocks([seen[i] for i in self.config.hooked_layers])
        return fs[0].cpu(), logits


class _Clock(StoppingCriteria):
    """Never stops; notes the time."""

    def __init__(self, began: float, steps: list[float]) -> None:
        self._began, self._steps = began, steps

    def __call__(self, input_ids: torch.Tensor, scores, **kwargs) -> torch.Tensor:
        self._steps.append(time.process_time() - self._began)
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
