"""Several questions about one montage in one sequence: what makes the small model's training cheap.

A montage is hundreds of tokens, a question about it a dozen. Packed, the montage is read once and
every question (prompt and answer) stands behind it, as if it were alone: it starts at the same
position, sees the montage and itself, and no other question. The montage does not see the
questions, which is the one difference from an evaluation prompt, where image and prompt attend to
each other. The last phases of stages 0 and 1, and stage 2, use the evaluation's own layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PaliGemmaProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ifailsense_ros.core.prompt import IMAGE_TOKEN
from ifailsense_ros.model.vlm import IGNORED_LABEL, base_of, soft_capped, tokens_of


@dataclass(frozen=True)
class Packed:
    """B montages with their questions, padded on the right to one length L.

    Attributes:
        input_ids: int64 (B, L).
        mask: bool (B, 1, L, L), True where a row may look at a column.
        position_ids: int64 (B, L), from 1, as PaliGemma counts.
        labels: int64 (B, L), `IGNORED_LABEL` outside of the answers.
        question: int64 (B, L), number of the question within its row; -1 outside of them.
    """

    input_ids: torch.Tensor
    mask: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    question: torch.Tensor


def pack(
    processor: PaliGemmaProcessor,
    rows: Sequence[Sequence[tuple[str, str]]],
    shown: np.ndarray | None = None,
) -> Packed:
    """Lay out each montage's (prompt, answer) pairs.

    Args:
        rows: prompts begin with one image token, as in `encode_prompts`.
        shown: image tokens that are there, int64 (n,), ascending; each keeps its position. None:
            all of them.
    """
    tokenizer, whole = processor.tokenizer, processor.image_seq_length
    images = whole if shown is None else len(shown)
    blocks = [
        [
            (
                [
                    tokenizer.bos_token_id,
                    *tokens_of(tokenizer, f"{prompt.removeprefix(IMAGE_TOKEN)}\n"),
                ],
                [*tokens_of(tokenizer, answer), tokenizer.eos_token_id],
            )
            for prompt, answer in row
        ]
        for row in rows
    ]
    length = images + max(sum(len(p) + len(a) for p, a in row) for row in blocks)
    shape = (len(rows), length)
    input_ids = torch.full(shape, tokenizer.pad_token_id)
    input_ids[:, :images] = processor.image_token_id
    position_ids = torch.arange(1, length + 1).repeat(len(rows), 1)
    if shown is not None:
        position_ids[:, :images] = torch.from_numpy(shown) + 1
    labels = torch.full(shape, IGNORED_LABEL)
    question = torch.full(shape, -1)
    answering = torch.zeros(shape, dtype=torch.bool)
    for i, row in enumerate(blocks):
        start = images
        for number, (prompt, answer) in enumerate(row):
            middle, end = start + len(prompt), start + len(prompt) + len(answer)
            input_ids[i, start:end] = torch.tensor(prompt + answer)
            position_ids[i, start:end] = torch.arange(whole + 1, whole + 1 + end - start)
            labels[i, middle:end] = torch.tensor(answer)
            question[i, start:end] = number
            answering[i, middle:end] = True
            start = end
    order = torch.arange(length)
    same = (question[:, :, None] == question[:, None, :]) & (question >= 0)[:, :, None]
    # Within a question the prompt is seen from everywhere, the answer only from later on.
    seen = ~answering[:, None, :] | (order[:, None] >= order[None, :])
    mask = (same & seen) | (order < images)[None, None, :]
    return Packed(input_ids, mask[:, None], position_ids, labels, question)


def packed_logits(
    model: nn.Module, packed: Packed, features: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What every answer token, eos included, is predicted from, row by row.

    Args:
        features: (B, n_img, d_vision) of the frozen tower; of the tokens that are shown.

    Returns:
        float32 (n, V) logits; int64 (n,) tokens, rows, and questions within the row; n the number
        of answer tokens.
    """
    rows, columns = (packed.labels != IGNORED_LABEL).nonzero(as_tuple=True)
    logits = _logits_before(model, packed, features, rows, columns)
    tokens = packed.labels[rows, columns].to(logits.device)
    return logits, tokens, rows, packed.question[rows, columns]


def packed_answers(model: nn.Module, packed: Packed, features: torch.Tensor) -> torch.Tensor:
    """Logits (n, V) from which each question's first answer token is read, row by row."""
    answers = packed.labels != IGNORED_LABEL
    rows, columns = (answers & ~answers.roll(1, 1)).nonzero(as_tuple=True)
    return _logits_before(model, packed, features, rows, columns)


def _logits_before(
    model: nn.Module,
    packed: Packed,
    features: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
) -> torch.Tensor:
    """Float32 logits (n, V) of the positions before the given ones."""
    base = base_of(model)
    projector = base.model.multi_modal_projector
    weight = next(projector.parameters())
    device = weight.device
    image = BaseModelOutputWithPooling(
        last_hidden_state=features, pooler_output=projector(features.to(device, weight.dtype))
    )
    hidden = base.model(
        input_ids=packed.input_ids.to(device),
        attention_mask=packed.mask.to(device),
        position_ids=packed.position_ids.to(device),
        mm_encoder_outputs={"image": image},
        use_cache=False,
    ).last_hidden_state
    return soft_capped(base, base.lm_head(hidden[rows.to(device), columns.to(device) - 1]).float())
