"""Hidden states of the frozen VLM for stage 2: computed once, in pieces, and kept on disk.

They lie in a folder named by a hash of everything they depend on, so that states of other weights,
samples, layers or prompts are never taken for these.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from transformers import PaliGemmaProcessor

from ifailsense_ros.core.prompt import AS_GIVEN, build_prompt
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.smf import Sample
from ifailsense_ros.model.vlm import base_of, encode_prompts, first_tokens, one_pass
from ifailsense_ros.train.compute import accelerator, amp, uses_bf16
from ifailsense_ros.train.features import Rows, weights_hash

PIECE = 480
"""Samples of a file: what a kill loses at most."""


@dataclass(frozen=True)
class HiddenStates:
    """What the FS blocks learn from.

    Attributes:
        states: float16 (n, K, L, d) of the hooked layers, left-padded; on disk.
        mask: (n, L) bool, False at padding.
        labels: (n,) bool, True where the instruction was carried out.
        vlm: (n,) float32, logit(success) - logit(fail) of the VLM's own answer.
        categories: (n,) task categories.
    """

    states: Rows
    mask: np.ndarray
    labels: np.ndarray
    vlm: np.ndarray
    categories: np.ndarray

    def batch(self, rows: np.ndarray) -> tuple[list[torch.Tensor], torch.Tensor]:
        """float32 (B, L, d) of each layer, and the mask (B, L)."""
        states = torch.from_numpy(self.states[rows].astype(np.float32))
        return list(states.unbind(1)), torch.from_numpy(self.mask[rows])


class Collector:
    """Runs the frozen VLM over samples, or reads what was kept of an earlier time.

    Args:
        model: after stage 1, in eval mode.
        layers: 0-based decoder layers.
        words: the answers whose logits are compared.
        cache: folder of the kept states.
        spelling: of the checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: PaliGemmaProcessor,
        layers: Sequence[int],
        prompt: str,
        words: tuple[str, str],
        ablation: Ablation,
        cache: Path,
        spelling: str = AS_GIVEN,
    ) -> None:
        self._spelling = spelling
        self._model, self._processor, self._layers = model, processor, tuple(layers)
        self._prompt, self._ablation, self._cache = prompt, ablation, cache
        self._answers = list(first_tokens(processor.tokenizer, words))
        self._key = {
            "weights": weights_hash(model),
            "layers": list(layers),
            "prompt": prompt,
            "spelling": spelling,
            "words": list(words),
            "shown": ablation.name,
            "bf16": uses_bf16(),
        }

    @torch.no_grad()
    def collect(
        self, samples: Sequence[Sample], features: Rows, data_hash: str, *, batch: int = 48
    ) -> HiddenStates:
        """Hidden states of all samples; processes share the work.

        Args:
            features: of the data set that the samples' rows are in.
            data_hash: of that data set.
        """
        here = accelerator()
        rows = [asdict(s) for s in samples]
        key = json.dumps({**self._key, "data": data_hash, "samples": rows}, sort_keys=True)
        folder = self._cache / hashlib.sha256(key.encode()).hexdigest()[:24]
        folder.mkdir(parents=True, exist_ok=True)
        prompts = [
            build_prompt(self._ablation.text(s.instruction), self._prompt, spelling=self._spelling)
            for s in samples
        ]
        lengths = {p: encode_prompts(self._processor, [p])["input_ids"].shape[1] for p in prompts}
        longest = max(lengths.values())
        starts = range(0, len(samples), PIECE)
        paths = [folder / f"{number:04d}.npy" for number in range(len(starts))]
        # Shared out before looking at what is there: others may be done with their part by now.
        work = list(zip(paths, starts, strict=True))
        share = [w for w in work[here.process_index :: here.num_processes] if not w[0].exists()]
        for path, start in tqdm(share, desc="hidden states", mininterval=5, disable=not share):
            end = min(start + PIECE, len(samples))
            self._piece(path, samples[start:end], prompts[start:end], features, longest, batch)
        here.wait_for_everyone()
        sides = [np.load(_side_of(p)) for p in paths]
        return HiddenStates(
            states=Rows([np.load(p, mmap_mode="r") for p in paths]),
            mask=np.concatenate([s["mask"] for s in sides]),
            labels=np.array([s.success for s in samples]),
            vlm=np.concatenate([s["vlm"] for s in sides]),
            categories=np.array([s.category for s in samples]),
        )

    def _piece(
        self,
        path: Path,
        samples: Sequence[Sample],
        prompts: Sequence[str],
        features: Rows,
        longest: int,
        batch: int,
    ) -> None:
        device = accelerator().device
        width = base_of(self._model).config.get_text_config().hidden_size
        states = np.zeros((len(samples), len(self._layers), longest, width), np.float16)
        mask = np.zeros((len(samples), longest), dtype=bool)
        vlm = np.zeros(len(samples), np.float32)
        for start in range(0, len(samples), batch):
            rows = slice(start, min(start + batch, len(samples)))
            inputs = encode_prompts(self._processor, prompts[rows])
            inputs = {k: v.to(device) for k, v in inputs.items()}
            pictures = features[[s.index for s in samples[rows]]].astype(np.float32)
            with amp():
                out = one_pass(
                    self._model, inputs, self._layers, features=torch.from_numpy(pictures)
                )
            length = out.mask.shape[1]
            for k, hidden in enumerate(out.hidden):
                states[rows, k, longest - length :] = hidden.float().cpu().numpy()
            mask[rows, longest - length :] = out.mask.cpu().numpy()
            success, fail = (out.logits[:, i].float() for i in self._answers)
            vlm[rows] = (success - fail).cpu().numpy()
        _replace(_side_of(path), lambda f: np.savez(f, mask=mask, vlm=vlm))
        _replace(path, lambda f: np.save(f, states))  # last: its presence says that all is there


def _side_of(path: Path) -> Path:
    return path.with_suffix(".npz")


def _replace(path: Path, write) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as f:
        write(f)
    os.replace(part, path)
