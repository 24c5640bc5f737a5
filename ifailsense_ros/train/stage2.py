"""Stage 2: the VLM is frozen, the FS blocks learn on its hidden states (paper, Sec. IV-B.2).

The hidden states are computed once and kept on disk; no epoch computes them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.core.prompt import build_prompt
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.smf import Sample
from ifailsense_ros.model.fs_block import FSBlocks
from ifailsense_ros.model.vlm import encode_prompts, one_pass
from ifailsense_ros.train import loop
from ifailsense_ros.train.compute import amp
from ifailsense_ros.train.dataset import TrainingSet
from ifailsense_ros.train.recipes import Stage2
from ifailsense_ros.train.stage1 import FAIL, SUCCESS


@dataclass(frozen=True)
class HiddenStates:
    """What the FS blocks learn from.

    Attributes:
        states: one (n, L, d) float16 array a hooked layer, left-padded.
        mask: (n, L) bool, False at padding.
        labels: (n,) bool, True where the instruction was carried out.
        vlm: (n,) float32, logit(success) - logit(fail) of the VLM's own answer.
    """

    states: tuple[np.ndarray, ...]
    mask: np.ndarray
    labels: np.ndarray
    vlm: np.ndarray

    def batch(self, rows: np.ndarray) -> tuple[list[torch.Tensor], torch.Tensor]:
        """float32 (B, L, d) of each layer, and the mask (B, L)."""
        states = [torch.from_numpy(s[rows].astype(np.float32)) for s in self.states]
        return states, torch.from_numpy(self.mask[rows])


def fresh_blocks(settings: Stage2, width: int) -> FSBlocks:
    """One untrained FS block a hooked layer, for hidden states of `width`."""
    torch.manual_seed(settings.schedule.seed)
    return FSBlocks(len(settings.layers), width, settings.head)


def training_samples(train: TrainingSet, settings: Stage2) -> list[Sample]:
    """Random montages of the set, each with g* and with a wrong instruction."""
    rng = np.random.default_rng((settings.schedule.seed, 2))
    samples = []
    for drawn in train.draw(rng, settings.sampling):
        e = train.experts[drawn.index]
        for texts, success in ((drawn.right, True), (drawn.wrong, False)):
            samples += [Sample(drawn.index, t, success, e.task, e.category) for t in texts]
    return samples


@torch.no_grad()
def collect(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    samples: Sequence[Sample],
    features: np.ndarray,
    layers: Sequence[int],
    prompt: str,
    ablation: Ablation,
    cache: Path,
    *,
    batch: int = 48,
) -> HiddenStates:
    """Run the frozen VLM over all samples, or read what an earlier run kept in `cache`."""
    names = [f"layer{i}" for i in layers]
    labels = np.array([s.success for s in samples])
    if (cache / "vlm.npy").exists():  # written last
        states = tuple(np.load(cache / f"{n}.npy", mmap_mode="r") for n in names)
        return HiddenStates(states, np.load(cache / "mask.npy"), labels, np.load(cache / "vlm.npy"))
    cache.mkdir(parents=True, exist_ok=True)
    prompts = [build_prompt(ablation.text(s.instruction), prompt) for s in samples]
    longest = max(encode_prompts(processor, [p])["input_ids"].shape[1] for p in set(prompts))
    width = model.config.get_text_config().hidden_size
    shape = (len(samples), longest, width)
    states = tuple(
        np.lib.format.open_memmap(cache / f"{n}.npy", mode="w+", dtype=np.float16, shape=shape)
        for n in names
    )
    mask = np.zeros(shape[:2], dtype=bool)
    vlm = np.zeros(len(samples), dtype=np.float32)
    yes, no = (processor.tokenizer.encode(w, add_special_tokens=False)[0] for w in (SUCCESS, FAIL))
    for start in tqdm(range(0, len(samples), batch), desc=cache.name, mininterval=5):
        rows = slice(start, min(start + batch, len(samples)))
        inputs = encode_prompts(processor, prompts[rows])
        pictures = features[[s.index for s in samples[rows]]].astype(np.float32)
        with amp():
            out = one_pass(model, inputs, layers, features=torch.from_numpy(pictures))
        length = out.mask.shape[1]
        for kept, hidden in zip(states, out.hidden, strict=True):
            kept[rows, longest - length :] = hidden.float().numpy().astype(np.float16)
        mask[rows, longest - length :] = out.mask.numpy()
        vlm[rows] = (out.logits[:, yes] - out.logits[:, no]).float().numpy()
    for kept in states:
        kept.flush()
    np.save(cache / "mask.npy", mask)
    np.save(cache / "vlm.npy", vlm)
    return HiddenStates(states, mask, labels, vlm)


def head_logits(blocks: FSBlocks, data: HiddenStates, rows: np.ndarray) -> torch.Tensor:
    """Logits (B, K) of the FS blocks for the given rows."""
    states, mask = data.batch(rows)
    with amp():
        return blocks(states, mask)


@torch.no_grad()
def measure(blocks: FSBlocks, data: HiddenStates, weight_vlm: float = 2.0) -> dict[str, float]:
    """Accuracy of each block, of the VLM's answer and of the weighted vote; mean loss."""
    order = np.arange(len(data.labels))
    logits = torch.cat(
        [head_logits(blocks, data, order[i : i + 64]) for i in range(0, len(order), 64)]
    )
    truth = torch.from_numpy(data.labels)
    votes = logits > 0
    vlm = torch.from_numpy(data.vlm) > 0
    vote = votes.sum(1) + weight_vlm * vlm > (len(blocks) + weight_vlm) / 2
    target = truth.float()[:, None].expand_as(logits)
    loss = functional.binary_cross_entropy_with_logits(logits, target)
    each = {f"accuracy_fs{i}": float((v == truth).float().mean()) for i, v in enumerate(votes.T)}
    return {
        "negative_loss": -float(loss),
        "accuracy": float((vote == truth).float().mean()),
        "accuracy_vlm": float((vlm == truth).float().mean()),
        **each,
    }


def train_stage2(
    blocks: FSBlocks,
    train: HiddenStates,
    validation: HiddenStates,
    settings: Stage2,
    folder: Path,
) -> dict[str, float]:
    """Train all FS blocks side by side; binary cross-entropy averaged over them."""
    labels = train.labels.astype(np.float32)

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((settings.schedule.seed, step))
        rows = np.sort(
            rng.choice(len(labels), size=min(settings.batch, len(labels)), replace=False)
        )
        logits = head_logits(blocks, train, rows)
        target = torch.from_numpy(labels[rows])[:, None].expand_as(logits)
        return {"loss": functional.binary_cross_entropy_with_logits(logits, target)}

    return loop.run(
        [blocks],
        loss_of_step,
        lambda: measure(blocks, validation),
        settings.schedule,
        folder,
        better="negative_loss",
    )
