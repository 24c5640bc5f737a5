"""Fused attention for the language model, where it computes the same as the plain one.

Transformers refuses the fused kernel for Gemma2, because the kernel cannot soft-cap the attention
scores. A checkpoint without that cap (ours) loses nothing by it and trains with less CPU time
and memory; with the cap (Google's) it is the plain implementation, which is said here because
transformers before 5.21 takes the kernel and forgets the cap.
"""

from __future__ import annotations

from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

FUSED = "fused_without_softcap"

AttentionInterface.register(FUSED, sdpa_attention_forward)
AttentionMaskInterface.register(FUSED, sdpa_mask)


def use_fused_attention(language_model: nn.Module) -> bool:
    """Switch a decoder to the fused kernel if it has no soft cap, else to the plain one; says
    whether it is the fused one.
    """
    capped = getattr(language_model.config, "attn_logit_softcapping", None) is not None
    language_model.set_attn_implementation("eager" if capped else FUSED)
    return not capped
