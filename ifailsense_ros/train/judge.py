"""How well the answer words' logits tell right from wrong instructions, on cached features."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.smf import Sample
from ifailsense_ros.model.vlm import encode_prompts, first_tokens, forward_from_vision
from ifailsense_ros.train.compute import amp
from ifailsense_ros.train.packing import pack, packed_answers
from ifailsense_ros.train.views import shown_features


class AnswerProbe:
    """Scores samples by the logits of two answer words at the last prompt position.

    Args:
        samples: with each episode once right and once wrong.
        features: (n, n_img, d_vision), rows as in `Sample.index`.
    """

    def __init__(
        self, processor: PaliGemmaProcessor, samples: Sequence[Sample], features: np.ndarray
    ) -> None:
        self._samples = list(samples)
        self._features = features
        self._processor = processor

    @torch.no_grad()
    def margins(
        self,
        model: PaliGemmaForConditionalGeneration,
        prompt: str,
        words: tuple[str, str],
        ablation: Ablation,
        batch: int = 48,
        *,
        packed: bool = False,
        shown: np.ndarray | None = None,
    ) -> np.ndarray:
        """logit(words[0]) - logit(words[1]) of every sample, float32 (n,).

        Args:
            packed: in the layout of `train.packing`, which reads each montage once.
            shown: there, the image tokens that are read; None: all of them.
        """
        first, second = first_tokens(self._processor.tokenizer, words)
        if packed:
            return self._packed_margins(model, prompt, (first, second), ablation, shown)
        device = next(model.parameters()).device
        margins = []
        for start in range(0, len(self._samples), batch):
            part = self._samples[start : start + batch]
            prompts = [prompt.format(instruction=ablation.text(s.instruction)) for s in part]
            inputs = encode_prompts(self._processor, prompts)
            inputs = {k: v.to(device) for k, v in inputs.items()}
            pictures = torch.from_numpy(self._features[[s.index for s in part]].astype(np.float32))
            with amp():
                logits = forward_from_vision(model, inputs, pictures)[:, -1].float()
            margins.append(logits[:, first] - logits[:, second])
        return torch.cat(margins).cpu().numpy()

    def _packed_margins(
        self,
        model: PaliGemmaForConditionalGeneration,
        prompt: str,
        ids: tuple[int, int],
        ablation: Ablation,
        shown: np.ndarray | None,
        batch: int = 32,
    ) -> np.ndarray:
        places = defaultdict(list)
        for place, sample in enumerate(self._samples):
            places[sample.index].append(place)
        episodes = list(places)
        word = self._processor.tokenizer.decode([ids[0]])  # only to mark where an answer begins
        margins = np.zeros(len(self._samples), np.float32)
        for start in range(0, len(episodes), batch):
            part = episodes[start : start + batch]
            rows = [
                [
                    (prompt.format(instruction=ablation.text(self._samples[p].instruction)), word)
                    for p in places[index]
                ]
                for index in part
            ]
            pictures = torch.from_numpy(shown_features(self._features, part, shown))
            with amp():
                packed = pack(self._processor, rows, shown)
                logits = packed_answers(model, packed, pictures).float()
            flat = [p for index in part for p in places[index]]
            margins[flat] = (logits[:, ids[0]] - logits[:, ids[1]]).cpu().numpy()
        return margins

    def measure(
        self,
        model: PaliGemmaForConditionalGeneration,
        prompt: str,
        words: tuple[str, str],
        ablation: Ablation,
        *,
        packed: bool = False,
        shown: np.ndarray | None = None,
    ) -> dict[str, float]:
        """Accuracy over all samples and per category; `packed` and `shown` as in `margins`."""
        margins = self.margins(model, prompt, words, ablation, packed=packed, shown=shown)
        right = (margins > 0) == np.array([s.success for s in self._samples])
        by_category = defaultdict(list)
        for sample, ok in zip(self._samples, right, strict=True):
            by_category[sample.category].append(ok)
        figures = {f"accuracy_{c}": float(np.mean(v)) for c, v in sorted(by_category.items())}
        return {"accuracy": float(right.mean()), **figures}
