"""Cross-entropy of the answers (paper, Eq. 1), from cached tower features."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ifailsense_ros.model.vlm import IGNORED_LABEL, Inputs, forward_from_vision


def suffix_logits(
    model: nn.Module, inputs: Inputs, features: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What every suffix token, eos included, is predicted from, row by row.

    Batches are left-padded, so all labels lie in the last columns, and logits are computed for
    those alone: at every position they would cost more than the rest of a small model.

    Args:
        inputs: from `encode_prompts` with suffixes; on any device, as the features are.
        features: (B, n_img, d_vision) of the frozen tower.

    Returns:
        float32 (n, V) logits and int64 (n,) tokens, n the number of labelled tokens.
    """
    device = next(model.parameters()).device
    inputs = {k: v.to(device) for k, v in inputs.items()}
    labelled = inputs["labels"] != IGNORED_LABEL
    columns = int(labelled.any(0).sum())
    logits = forward_from_vision(model, inputs, features, logits_to_keep=columns + 1)
    target = inputs["labels"][:, -columns:]
    wanted = target != IGNORED_LABEL
    return logits[:, :-1][wanted].float(), target[wanted]


def decision_loss(
    logits: torch.Tensor, tokens: torch.Tensor, words: tuple[int, int]
) -> torch.Tensor:
    """Mean cross-entropy between two words alone, over the answers that are one of them.

    Args:
        logits: (n, V) of the answers' tokens.
        tokens: int64 (n,), the right ones.
        words: ids of the two.
    """
    pair = torch.tensor(words, device=tokens.device)
    is_second = tokens == pair[1]
    decides = (tokens == pair[0]) | is_second
    return functional.cross_entropy(logits[decides][:, pair], is_second[decides].long())
