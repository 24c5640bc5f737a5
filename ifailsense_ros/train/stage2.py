"""Stage 2: the VLM is frozen, the FS blocks learn on its hidden states (paper, Sec. IV-B.2).

The hidden states are computed once and kept on disk; no epoch computes them again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.smf import Sample
from ifailsense_ros.model.authors_files import release_layers
from ifailsense_ros.model.fs_block import FSBlocks
from ifailsense_ros.train import loop
from ifailsense_ros.train.compute import accelerator, amp
from ifailsense_ros.train.dataset import TrainingSet
from ifailsense_ros.train.frames import framed
from ifailsense_ros.train.hidden import HiddenStates
from ifailsense_ros.train.settings import EVEN, RELEASE_RULE, Stage2


def hooked_layers(settings: Stage2, num_layers: int) -> tuple[int, ...]:
    """The decoder layers that the blocks read, 0-based, shallow to deep.

    Raises:
        ConfigError: they do not exist, or do not rise; names the option.
    """
    layers, count = settings.layers, settings.num_blocks
    if layers == RELEASE_RULE:
        layers = release_layers(num_layers, count)
    elif layers == EVEN:
        layers = tuple(round((i + 1) * num_layers / count) - 1 for i in range(count))
    if (
        not layers
        or list(layers) != sorted(set(layers))
        or not 0 <= layers[0] <= layers[-1] < (num_layers)
    ):
        raise ConfigError(
            f"layers {','.join(map(str, layers))}: must rise within 0..{num_layers - 1}, the "
            "decoder layers of this base; name others with --layers"
        )
    return tuple(layers)


def vote_weights(settings: Stage2, count: int) -> tuple[float, ...]:
    """omega_k of `count` blocks.

    Raises:
        ConfigError: the recipe names another number of them.
    """
    weights = settings.vote_weights or (1.0,) * count
    if len(weights) != count:
        raise ConfigError(f"vote_weights: {len(weights)} of them for {count} FS blocks")
    return weights


def fresh_blocks(settings: Stage2, count: int, width: int) -> FSBlocks:
    """Untrained FS blocks for `count` layers of hidden states of `width`."""
    torch.manual_seed(settings.schedule.seed)
    return FSBlocks(count, width, settings.head)


def training_samples(train: TrainingSet, settings: Stage2) -> list[Sample]:
    """Random montages of the set, each with g* and with a wrong instruction; or all of them, as
    they are said there."""
    if not settings.sampling.pictures:
        return train.pairs()
    rng = np.random.default_rng((settings.schedule.seed, 2))
    samples = []
    for drawn in train.draw(rng, settings.sampling):
        e = train.experts[drawn.index]
        for texts, success in ((drawn.right, True), (drawn.wrong, False)):
            said = [framed(t, settings.framed, rng) for t in texts]
            samples += [Sample(drawn.index, t, success, e.task, e.category) for t in said]
    return samples


def rows_of_batch(seed: int, number: int, size: int, batch: int) -> np.ndarray:
    """Rows of a numbered batch: each epoch is a fresh order of all rows, and every row comes once.

    What does not fill a batch at the end of an epoch is left out of that epoch: batch
    normalisation cannot learn from a single row.
    """
    batch = min(batch, size)
    epoch, place = divmod(number, size // batch)
    order = np.random.default_rng((seed, epoch)).permutation(size)
    return np.sort(order[place * batch : (place + 1) * batch])


def head_logits(blocks: FSBlocks, data: HiddenStates, rows: np.ndarray) -> torch.Tensor:
    """Logits (B, K) of the FS blocks for the given rows."""
    device = next(blocks.parameters()).device
    states, mask = data.batch(rows)
    with amp():
        return blocks([s.to(device) for s in states], mask.to(device))


@torch.no_grad()
def measure(blocks: FSBlocks, data: HiddenStates, settings: Stage2) -> dict[str, float]:
    """Accuracy of each block, of the VLM's answer and of the weighted vote, the vote's in each task
    category; mean loss.
    """
    order = np.arange(len(data.labels))
    logits = torch.cat(
        [head_logits(blocks, data, order[i : i + 64]).cpu() for i in range(0, len(order), 64)]
    )
    truth = torch.from_numpy(data.labels)
    votes = logits > 0
    vlm = torch.from_numpy(data.vlm) > 0
    weights = torch.tensor(vote_weights(settings, len(blocks)))
    total = float(weights.sum()) + settings.weight_vlm
    vote = votes.float() @ weights + settings.weight_vlm * vlm > total / 2
    target = truth.float()[:, None].expand_as(logits)
    loss = functional.binary_cross_entropy_with_logits(logits, target)
    each = {f"accuracy_fs{i}": float((v == truth).float().mean()) for i, v in enumerate(votes.T)}
    right = (vote == truth).numpy()
    by_category = {
        f"accuracy_{c}": float(right[data.categories == c].mean())
        for c in np.unique(data.categories)
    }
    return {
        "negative_loss": -float(loss),
        "accuracy": float(right.mean()),
        "accuracy_vlm": float((vlm == truth).float().mean()),
        **each,
        **by_category,
    }


def train_stage2(
    blocks: FSBlocks,
    train: HiddenStates,
    validation: HiddenStates,
    settings: Stage2,
    folder: Path,
) -> dict[str, float]:
    """Train all FS blocks side by side; binary cross-entropy averaged over them."""
    labels = torch.from_numpy(train.labels.astype(np.float32))
    schedule = settings.schedule.in_steps(len(labels), settings.batch, accelerator().num_processes)

    def loss_of_batch(number: int) -> dict[str, torch.Tensor]:
        rows = rows_of_batch(schedule.seed, number, len(labels), settings.batch)
        logits = head_logits(blocks, train, rows)
        target = labels[rows].to(logits.device)[:, None].expand_as(logits)
        return {"loss": functional.binary_cross_entropy_with_logits(logits, target)}

    return loop.run(
        [blocks],
        loss_of_batch,
        lambda: measure(blocks, validation, settings),
        schedule,
        folder,
        better="negative_loss",
    )
