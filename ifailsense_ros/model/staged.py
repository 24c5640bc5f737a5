"""The one pass in two stages: to the deepest hooked layer, and from there to the VLM's answer.

Where the FS blocks agree and the VLM could not outvote them, the second stage need not be run: the
lossless short-circuit. Its layers go on from the very tensors that the first stage left, so that
both stages together compute what `vlm.one_pass` does.

Differences from the model's own forward, none of which changes a result: the whole prompt is a
prefix that is attended in both directions, so the mask is one row of keys (and none where nothing
is padded) instead of a matrix built anew; image features are put in their places without asking
the device how many there are; and only the answer's position, or only the rows of the answer words,
go through the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ifailsense_ros.core.errors import CheckpointError
from ifailsense_ros.model.vlm import base_of, soft_capped

DECODERS = ("gemma", "gemma2")


class StagedPass:
    """The decoder of a PaliGemma (Gemma or Gemma2), with its adapter merged.

    Tensors in, tensors out: nothing in either stage depends on values, only on shapes, so that both
    can be compiled and captured in CUDA graphs.

    Args:
        model: the VLM, in eval mode.
        layers: 0-based hooked decoder layers, shallow to deep; empty: the VLM alone.
        answer_rows: tokens whose logits are wanted; None: the whole vocabulary.

    Raises:
        CheckpointError: the language model is none of the two kinds.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[int], answer_rows: Sequence[int] | None = None
    ) -> None:
        base = base_of(model)
        decoder = base.model.language_model
        if decoder.config.model_type not in DECODERS:
            raise CheckpointError(
                f"the base's language model is a {decoder.config.model_type}, and must be one of "
                f"{', '.join(DECODERS)}; take a PaliGemma"
            )
        self._base, self._decoder, self._layers = base, decoder, tuple(layers)
        self._depth = layers[-1] + 1 if layers else 0
        self._image_token = base.config.image_token_id
        self._rows = None
        if answer_rows is not None:
            self._rows = base.lm_head.weight[list(answer_rows)].clone()

    @property
    def can_stop(self) -> bool:
        """Whether layers are left after the deepest hook: stopping there saves them."""
        return 0 < self._depth < len(self._decoder.layers)

    @property
    def longest(self) -> int:
        """Most tokens of a prompt: positions end there, or the sliding window hides some."""
        config = self._decoder.config
        kinds = getattr(config, "layer_types", None) or ()
        limit = config.max_position_embeddings
        return min(limit, config.sliding_window) if "sliding_attention" in kinds else limit

    def first(
        self, ids: torch.Tensor, mask: torch.Tensor | None, features: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """To the deepest hook.

        Args:
            ids: (B, L) from `vlm.encode_prompts`, without suffixes.
            mask: (B, L) bool, False at padding; None where nothing is padded.
            features: (B, image tokens, tower width) from `vlm.vision_features`.

        Returns:
            Raw outputs (B, L, d) of the hooked layers; the last is what `second` goes on from. The
            embeddings where no layer is hooked.
        """
        x = self._embed(ids, features)
        hidden = self._run(x, mask, 0, self._depth)
        return tuple(hidden[i] for i in self._layers) or (x,)

    def second(self, state: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """From the deepest hook to the answer: logits (B, V) at the last position, or (B, R) of
        the answer rows.

        Args:
            state: (B, L, d), the last of what `first` returned, or some of its rows.
            mask: (B, L) of these rows.
        """
        end = len(self._decoder.layers)
        if self._depth < end:
            state = self._run(state, mask, self._depth, end)[end - 1]
        answer = self._decoder.norm(state[:, -1])
        logits = self._base.lm_head(answer) if self._rows is None else answer @ self._rows.T
        return soft_capped(self._base, logits)

    def _embed(self, ids: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(B, L, d): words from the table, image tokens from the tower through the projector."""
        table = self._base.get_input_embeddings()
        is_image = ids == self._image_token
        # its number may be one that the table does not have
        x = table(ids.masked_fill(is_image, 0))
        projector = self._base.model.multi_modal_projector
        image = projector(features.to(projector.linear.weight.dtype)).to(x.dtype)
        which = (is_image.cumsum(1) - 1).clamp(0, image.shape[1] - 1)
        spread = image.gather(1, which[..., None].expand(-1, -1, image.shape[2]))
        return torch.where(is_image[..., None], spread, x)

    def _run(
        self, x: torch.Tensor, mask: torch.Tensor | None, start: int, end: int
    ) -> dict[int, torch.Tensor]:
        """Outputs of layers start..end-1; those of the hooked ones and of the last are kept."""
        positions = torch.arange(1, x.shape[1] + 1, device=x.device)[None]  # PaliGemma's begin at 1
        rotary = self._decoder.rotary_emb(x, positions)
        keys = None
        if mask is not None:
            keys = torch.zeros(mask.shape, dtype=x.dtype, device=x.device)
            keys = keys.masked_fill(~mask, torch.finfo(x.dtype).min)[:, None, None]
        kept: dict[int, torch.Tensor] = {}
        for i in range(start, end):
            # is_causal: the fused kernel takes a missing mask for a causal one otherwise
            x = self._decoder.layers[i](
                x,
                position_embeddings=rotary,
                position_ids=positions,
                attention_mask=keys,
                is_causal=False,
            )
            if i in self._layers or i == end - 1:
                kept[i] = x
        return kept
