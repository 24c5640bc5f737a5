"""The control that shows that verdicts come from the weights: the same weights in another order."""

from __future__ import annotations

import torch
from torch import nn

from ifailsense_ros.model.checkpoint import LoadedCheckpoint


def shuffle_trained_weights(checkpoint: LoadedCheckpoint, seed: int) -> None:
    """Permute the elements of every trained tensor in place; shapes and statistics stay.

    The language model, the projector (the adapter is merged into them) and the FS blocks; not the
    encoder, which nobody trained.
    """
    generator = torch.Generator().manual_seed(seed)
    inner = checkpoint.model.model
    modules: list[nn.Module] = [
        inner.multi_modal_projector,
        inner.language_model,
        checkpoint.model.lm_head,
        checkpoint.fs_blocks,
    ]
    done: set[int] = set()
    with torch.no_grad():
        for module in modules:
            for tensor in module.state_dict(keep_vars=True).values():
                # the tied head is the embedding again; counters are not weights
                if tensor.data_ptr() in done or not tensor.is_floating_point():
                    continue
                done.add(tensor.data_ptr())
                order = torch.randperm(tensor.numel(), generator=generator)
                flat = tensor.detach().cpu().flatten()
                tensor.data.copy_(flat[order].view(tensor.shape))
