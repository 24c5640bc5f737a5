"""The VLM half: inputs, one forward pass, and the reading of its answer (paper, Sec. IV-B).

Everything works on the real `PaliGemmaForConditionalGeneration` of transformers 5. Mistakes that
this library answers with silently wrong numbers are kept in one place here: token_type_ids are
always passed (without them the image and prompt are attended causally), the FS blocks read the raw
outputs of decoder layers (`hidden_states[-1]` is after the final norm), and `labels` exist only
where there is something to learn (the processor makes them always, and the loss becomes NaN).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ifailsense_ros.core.checkpoint import AnswerWords
from ifailsense_ros.core.errors import CheckpointError
from ifailsense_ros.core.prompt import IMAGE_TOKEN
from ifailsense_ros.core.verdict import VoteValue

LORA_TARGETS = r".*language_model.*\.(q|k|v)_proj"
"""Pattern of the adapted projections: plain names would wrap the vision tower as well."""

IGNORED_LABEL = -100

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class PassOutput:
    """What one forward pass gives.

    Attributes:
        logits: (B, V), at the last position.
        hidden: one (B, L, d) a hooked layer, shallow to deep: raw outputs, before the final norm.
        mask: (B, L) bool, False at padding.
    """

    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...]
    mask: torch.Tensor


@dataclass(frozen=True)
class Answer:
    """The VLM's vote: NaN and ABSTAIN where it said something else.

    Attributes:
        value: the vote.
        p_success: of the two answers.
        text: what it said.
        logit: of `p_success`.
    """

    value: VoteValue
    p_success: float
    text: str
    logit: float


def base_of(model: nn.Module) -> PaliGemmaForConditionalGeneration:
    """The PaliGemma inside a peft wrapper (its adapters stay active), or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


# --- inputs ---------------------------------------------------------------------------------------


def encode_pictures(processor: PaliGemmaProcessor, pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """Montages as the vision tower wants them.

    Args:
        pictures: uint8 RGB (H, W, 3) each; squashed to the processor's size.

    Returns:
        float32 (B, 3, height, width), normalised.
    """
    batch = processor.image_processor(
        images=list(pictures), return_tensors="pt", input_data_format="channels_last"
    )
    return batch["pixel_values"]


def encode_prompts(
    processor: PaliGemmaProcessor,
    prompts: Sequence[str],
    suffixes: Sequence[str] | None = None,
) -> Inputs:
    """Prompts as token ids, laid out as PaliGemmaProcessor does, left-padded to one length.

    `<image>` becomes the image tokens; then bos, the rest of the prompt and a newline. In the rest
    names of special tokens are ordinary text, so that no instruction can break the layout.

    Args:
        prompts: from `core.prompt.build_prompt`.
        suffixes: answers to learn, eos is added; None for inference.

    Returns:
        input_ids, attention_mask, token_type_ids (0 = prefix, attended in both directions; 1 =
        suffix), each int64 (B, L); with suffixes also labels (-100 where there is nothing to
        learn), to be taken out before a forward pass that does not want its loss.
    """
    tokenizer = processor.tokenizer
    rows = []
    for prompt in prompts:
        *before, rest = prompt.split(IMAGE_TOKEN)
        ids: list[int] = []
        for piece in before:
            ids += tokens_of(tokenizer, piece)
            ids += [processor.image_token_id] * processor.image_seq_length
        rows.append([*ids, tokenizer.bos_token_id, *tokens_of(tokenizer, f"{rest}\n")])
    ends = [
        [*tokens_of(tokenizer, suffix), tokenizer.eos_token_id] if suffixes is not None else []
        for suffix in (suffixes if suffixes is not None else [""] * len(rows))
    ]
    length = max(len(row) + len(end) for row, end in zip(rows, ends, strict=True))
    shape = (len(rows), length)
    inputs = {
        "input_ids": torch.full(shape, tokenizer.pad_token_id),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
        "token_type_ids": torch.zeros(shape, dtype=torch.long),
    }
    if suffixes is not None:
        inputs["labels"] = torch.full(shape, IGNORED_LABEL)
    for i, (row, end) in enumerate(zip(rows, ends, strict=True)):
        start, prefix_end = length - len(row) - len(end), length - len(end)
        inputs["input_ids"][i, start:] = torch.tensor(row + end)
        inputs["attention_mask"][i, start:] = 1
        inputs["token_type_ids"][i, prefix_end:] = 1
        if suffixes is not None:
            inputs["labels"][i, prefix_end:] = torch.tensor(end)
    return inputs


def tokens_of(tokenizer, text: str) -> list[int]:
    """Token ids of a text, in which names of special tokens are ordinary words."""
    if not text:
        return []
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def first_tokens(tokenizer, words: tuple[str, str]) -> tuple[int, int]:
    """Ids that answers of these two words begin with."""
    first, second = (tokens_of(tokenizer, word)[0] for word in words)
    return first, second


# --- one pass -------------------------------------------------------------------------------------


def vision_features(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """Outputs of the vision tower (B, image tokens, tower width), before the projector.

    They depend on the picture alone and the tower is frozen: training computes them once.
    """
    tower = base_of(model).model.vision_tower
    return tower(pixel_values.to(tower.dtype)).last_hidden_state


def forward_from_vision(
    model: nn.Module,
    inputs: Inputs,
    features: torch.Tensor,
    *,
    logits_to_keep: int = 1,
) -> torch.Tensor:
    """Logits (B, n, V) of the last `logits_to_keep` positions (0: all) from tower features.

    The same numbers as from `pixel_values`, through transformers' own argument for encoder outputs
    computed before. Gradients flow into the projector and the language model.

    Args:
        inputs: from `encode_prompts`, without labels; on the model's device.
        features: (B, image tokens, tower width) from `vision_features`.
    """
    base = base_of(model)
    projector = base.model.multi_modal_projector
    weight = next(projector.parameters())
    projected = projector(features.to(weight.device, weight.dtype))
    image = BaseModelOutputWithPooling(last_hidden_state=features, pooler_output=projected)
    states = base.model(
        **_without_labels(inputs), mm_encoder_outputs={"image": image}, use_cache=False
    ).last_hidden_state
    return soft_capped(base, base.lm_head(states[:, -logits_to_keep:]))


def soft_capped(base: PaliGemmaForConditionalGeneration, logits: torch.Tensor) -> torch.Tensor:
    """Logits within the soft cap that Gemma 2 was trained with; as they are where it has none.

    Here and not in PaliGemma's own forward, which has no cap before transformers 5.23.
    """
    cap = getattr(base.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def one_pass(
    model: nn.Module,
    inputs: Inputs,
    layers: Sequence[int],
    *,
    pixel_values: torch.Tensor | None = None,
    features: torch.Tensor | None = None,
) -> PassOutput:
    """Hooked layers' outputs and the last position's logits from a single forward pass.

    Args:
        inputs: from `encode_prompts`.
        layers: 0-based decoder layers, shallow to deep.
        pixel_values: (B, 3, height, width) from `encode_pictures`; or
        features: from `vision_features`; exactly one of the two.
    """
    if (pixel_values is None) == (features is None):
        raise ValueError("give either pixel_values or features")
    if features is None:
        features = vision_features(model, pixel_values)
    with captured_layers(model, layers) as hidden:
        logits = forward_from_vision(model, inputs, features, logits_to_keep=1)
    return PassOutput(
        logits=logits[:, -1],
        hidden=tuple(hidden[i] for i in layers),
        mask=inputs["attention_mask"].bool(),
    )


@contextmanager
def captured_layers(model: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Collect raw outputs (B, L, d) of decoder layers during forward passes inside the block."""
    decoder = base_of(model).model.language_model.layers
    collected: dict[int, torch.Tensor] = {}

    def keep(index: int):
        def hook(_module, _args, output):
            collected[index] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [decoder[i].register_forward_hook(keep(i)) for i in layers]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()


def _without_labels(inputs: Inputs) -> Inputs:
    if "token_type_ids" not in inputs:
        raise ValueError("token_type_ids are missing: the prefix would be attended causally")
    return {k: v for k, v in inputs.items() if k != "labels"}


# --- answer ---------------------------------------------------------------------------------------


class AnswerReader:
    """Turns the last position's logits into the VLM's vote (one token; other words abstain).

    Args:
        tokenizer: of the VLM.
        words: which decoded tokens, stripped and lower-cased, count.

    Attributes:
        rows: the tokens whose logits it reads; None: those of the whole vocabulary.

    Raises:
        CheckpointError: no single token spells any of the success (or fail) words.
    """

    rows: list[int] | None = None

    def __init__(self, tokenizer, words: AnswerWords) -> None:
        self._tokenizer = tokenizer
        self._value = {w: VoteValue.SUCCESS for w in words.success}
        self._value |= {w: VoteValue.FAIL for w in words.fail}
        self._ids = {VoteValue.SUCCESS: [], VoteValue.FAIL: []}
        for token, index in tokenizer.get_vocab().items():
            if token.replace("▁", " ").strip().lower() in self._value:
                value = self._value.get(self._text(index))
                if value is not None:
                    self._ids[value].append(index)
        for value, ids in self._ids.items():
            if not ids:
                raise CheckpointError(
                    f"answer_words: no token of the vocabulary is a {value.name.lower()} word; "
                    "correct the checkpoint's answer_words"
                )

    def read(self, logits: torch.Tensor) -> list[Answer]:
        """Answers for logits (B, V); p_success: best success word against best fail word."""
        logits = logits.float()
        success = logits[:, self._ids[VoteValue.SUCCESS]].amax(1)
        fail = logits[:, self._ids[VoteValue.FAIL]].amax(1)
        margin = success - fail
        answers = []
        for index, p, logit in zip(
            logits.argmax(1).tolist(), torch.sigmoid(margin).tolist(), margin.tolist(), strict=True
        ):
            text = self._text(index)
            value = self._value.get(text, VoteValue.ABSTAIN)
            if value is VoteValue.ABSTAIN:
                p = logit = math.nan
            answers.append(Answer(value, p, text, logit))
        return answers

    def _text(self, index: int) -> str:
        return self._tokenizer.decode([index]).strip().lower()


class LikelierWord(AnswerReader):
    """Never abstains: the likelier of the best success word and the best fail word."""

    def __init__(self, tokenizer, words: AnswerWords) -> None:
        super().__init__(tokenizer, words)
        self.rows = [*self._ids[VoteValue.SUCCESS], *self._ids[VoteValue.FAIL]]

    def read(self, logits: torch.Tensor) -> list[Answer]:
        """Answers for logits (B, R) of `rows`; a tie is no success."""
        count = len(self._ids[VoteValue.SUCCESS])
        margin = logits[:, :count].float().amax(1) - logits[:, count:].float().amax(1)
        found = []
        for p, logit in zip(torch.sigmoid(margin).tolist(), margin.tolist(), strict=True):
            value = VoteValue.SUCCESS if p > 0.5 else VoteValue.FAIL
            found.append(Answer(value, p, value.name.lower(), logit))
        return found
