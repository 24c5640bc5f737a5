"""Cross-entropy of the suffix tokens (paper, Eq. 1) from cached tower features."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ifailsense_ros.model.vlm import IGNORED_LABEL, Inputs, forward_from_vision


def suffix_losses(
    model: nn.Module, inputs: Inputs, features: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of every suffix token, eos included, and the row of the batch it belongs to.

    Batches are left-padded, so all labels lie in the last columns, and logits are computed for
    those alone: at every position they would cost more than the rest of a small model.

    Args:
        inputs: from `encode_prompts` with suffixes; on any device, as the features are.
        features: (B, n_img, d_vision) of the frozen tower.

    Returns:
        float32 (n,) losses and int64 (n,) row numbers, n the number of labelled tokens.
    """
    device = next(model.parameters()).device
    inputs = {k: v.to(device) for k, v in inputs.items()}
    labelled = inputs["labels"] != IGNORED_LABEL
    columns = int(labelled.any(0).sum())
    logits = forward_from_vision(model, inputs, features, logits_to_keep=columns + 1)
    target = inputs["labels"][:, -columns:]
    wanted = target != IGNORED_LABEL
    losses = functional.cross_entropy(
        logits[:, :-1][wanted].float(), target[wanted], reduction="none"
    )
    return losses, wanted.nonzero(as_tuple=True)[0]
