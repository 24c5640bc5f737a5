"""FS blocks: binary heads on decoder layers (paper, Sec. IV-B.2 and Fig. 2, right).

Hybrid attention pooling over the tokens of one layer, then residual MLP blocks with batch
normalisation, then one logit. Names of parameters are those of the authors' files, so that their
weights fit; widths, heads and dropout are settings of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ifailsense_ros.core.checkpoint import FSHeadSettings
from ifailsense_ros.core.errors import ConfigError


class HybridAttentionPooling(nn.Module):
    """Weighted sum of the tokens; the weights mix an MLP's scores and a learned query's attention.

    Of the MultiheadAttention only the head-averaged softmax weights count: its values and output
    projection are parameters of the authors' files without any effect.

    Args:
        width: d of the tokens.
        num_heads: of the attention.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn_mlp = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
        self.query = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.mha = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.alpha = nn.Parameter(torch.tensor(0.5))

    def attention_weights(
        self, tokens: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The head-averaged weights that `self.mha(query, tokens, tokens)` returns, (B, L).

        One query serves every row, so it is taken through the keys' projection once instead of
        every token: q.(W t + b) = (W'q).t + q.b. What the attention would do with its values is
        not computed.
        """
        width, heads = self.mha.embed_dim, self.mha.num_heads
        weight_q, weight_k, _ = self.mha.in_proj_weight.view(3, width, width)
        bias_q, bias_k, _ = self.mha.in_proj_bias.view(3, width)
        query = functional.linear(self.query.view(width), weight_q, bias_q)
        query = query.view(heads, -1) * (width // heads) ** -0.5
        direction = torch.einsum("hc,hcd->hd", query, weight_k.view(heads, -1, width))
        offset = (query * bias_k.view(heads, -1)).sum(1)
        scores = tokens @ direction.T + offset  # (B, L, heads)
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None], -torch.inf)
        return scores.softmax(1).mean(2)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Pool (B, L, d) to (B, d). Tokens where `mask` (B, L) is False get no weight at all."""
        scores = self.attn_mlp(tokens).squeeze(-1)
        scores = self.alpha * scores + (1 - self.alpha) * self.attention_weights(tokens, mask)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        weights = scores.softmax(1)  # softmax subtracts the largest score itself
        return torch.einsum("bl,bld->bd", weights, tokens)


class _Residual(nn.Module):
    """x + dropout(fc(gelu(norm(x)))), width kept."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.fc = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(self.fc(functional.gelu(self.norm(x))))


class _MLPBlock(nn.Module):
    """A residual step, then norm, GELU, a linear layer to the next width, dropout."""

    def __init__(self, width: int, out_width: int, dropout: float) -> None:
        super().__init__()
        self.residual = _Residual(width, dropout)
        self.norm = nn.BatchNorm1d(width)
        self.fc = nn.Linear(width, out_width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.fc(functional.gelu(self.norm(self.residual(x)))))


class FSBlock(nn.Module):
    """One head on one decoder layer: the logit of success.

    Args:
        width: d of the layer.
        settings: widths of the classifier, heads of the pooling, dropout.

    Raises:
        ConfigError: the width does not divide by the pooling heads.
    """

    def __init__(self, width: int, settings: FSHeadSettings) -> None:
        super().__init__()
        if width % settings.pooling_heads:
            raise ConfigError(
                f"fs_head.pooling_heads {settings.pooling_heads} does not divide the layer's "
                f"width {width}; choose a divisor"
            )
        first, second = settings.widths
        self.attention_pooling = HybridAttentionPooling(width, settings.pooling_heads)
        self.classifier = nn.Sequential(
            _MLPBlock(width, first, settings.dropout),
            _MLPBlock(first, second, settings.dropout),
            nn.LayerNorm(second),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(second, 1),
        )

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logit of success (B,) from raw layer outputs (B, L, d); `mask` (B, L) as in pooling.

        Without a mask every token counts, as in the authors' files (their batches of one have no
        padding).
        """
        return self.classifier(self.attention_pooling(tokens, mask)).squeeze(-1)


class FSBlocks(nn.ModuleList):
    """The K blocks of a checkpoint, shallow to deep.

    Args:
        count: K.
        width: d of the decoder's layers.
        settings: of every block.
        masks_padding: False lets padding count as tokens, whatever the mask says; the authors'
            files were trained so.
    """

    def __init__(
        self, count: int, width: int, settings: FSHeadSettings, *, masks_padding: bool = True
    ) -> None:
        super().__init__(FSBlock(width, settings) for _ in range(count))
        self.masks_padding = masks_padding

    def forward(
        self, hidden: Sequence[torch.Tensor], mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits of success, float32 (B, K), from K layer outputs (B, L, d) of any float type."""
        dtype = next(self.parameters()).dtype
        mask = mask if self.masks_padding else None
        columns = [block(h.to(dtype), mask) for block, h in zip(self, hidden, strict=True)]
        return torch.stack(columns, 1).float()
