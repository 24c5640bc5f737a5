"""Vision-language models of other people, asked without any training (paper, Sec. V-B)."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import torch
from PIL import Image

from ifailsense_ros.core.checkpoint import AnswerWords, MontageSettings
from ifailsense_ros.core.detection import bare_config
from ifailsense_ros.core.errors import CheckpointError
from ifailsense_ros.core.prompt import IMAGE_TOKEN
from ifailsense_ros.core.verdict import Judgement, Reason, VoteValue
from ifailsense_ros.evaluate.baselines.asking import AskingDetector
from ifailsense_ros.evaluate.baselines.formats import FORMATS, Format
from ifailsense_ros.evaluate.baselines.local_files import LoadedVLM, load_vlm_of_others
from ifailsense_ros.model.device import is_out_of_memory

_log = logging.getLogger(__name__)

MAX_BATCH = 8
MAX_NEW_TOKENS = 12
"""Of an answer: every one that counts is shorter, and AHA's reasons are not read."""


def load_zero_shot(
    what: str,
    montage: MontageSettings,
    fmt: Format | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    likelier: bool = False,
) -> ZeroShotDetector:
    """Load a model as a detector.

    Args:
        what: folder, or "hub:ORG/NAME@REVISION".
        montage: which keyframes it is shown, and in what size.
        fmt: the question; None: `question` for models with a chat template, the paper's `evaluate`
            for those without, as PaliGemma.
        device: where it runs.
        dtype: of the weights.
        likelier: see `ZeroShotDetector`.

    Raises:
        CheckpointError: it cannot be loaded; see `load_vlm_of_others`.
    """
    vlm = load_vlm_of_others(what, device=device, dtype=dtype)
    if fmt is None:
        fmt = FORMATS["question" if vlm.processor.chat_template else "evaluate"]
    return ZeroShotDetector(vlm, montage, fmt, likelier=likelier)


class ZeroShotDetector(AskingDetector):
    """Greedy decoding of a few tokens, read strictly.

    `p_success` compares the two answers where the answer begins: the likeliest first token of a
    success word against that of a fail word. The token that was said counts among those of its
    side, so that p_success never contradicts the vote.

    Args:
        vlm: the model.
        montage: which keyframes it is shown.
        fmt: the question.
        likelier: take the likelier of the two answers as the first word, whatever would be said:
            never an abstention.
    """

    def __init__(
        self, vlm: LoadedVLM, montage: MontageSettings, fmt: Format, *, likelier: bool = False
    ) -> None:
        config = bare_config(
            f"zero-shot-{vlm.name}",
            montage,
            prompt=fmt.template(montage),
            words=fmt.words,
            files=vlm.files,
        )
        model_id = f"{config.model_id}+{fmt.name}{'+likelier' * likelier}"
        super().__init__(config, model_id, fmt)
        self._likelier = likelier
        self._model, self._processor = vlm.model, vlm.processor
        tokenizer = vlm.processor.tokenizer
        self._first = _first_tokens(tokenizer, fmt.words)
        self._special = {str(token) for token in tokenizer.all_special_tokens} | {
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        }

    def _prompt(self, instruction: str) -> str | Judgement:
        named = next((token for token in self._special if token in instruction), None)
        if named is not None:
            text = f"the instruction contains {named}, which the model does not take for text"
            return Judgement.unknown(Reason.DETECTOR_ERROR, text)
        return super()._prompt(instruction)

    def _ask(self, prompts: list[str], pictures: list[np.ndarray]) -> list[Judgement]:
        judgements: list[Judgement] = []
        for i in range(0, len(prompts), MAX_BATCH):
            judgements += self._run(prompts[i : i + MAX_BATCH], pictures[i : i + MAX_BATCH])
        return judgements

    def _run(self, prompts: list[str], pictures: list[np.ndarray]) -> list[Judgement]:
        """One batch; where memory does not suffice, halves of it."""
        try:
            return self._generate(prompts, pictures)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Out here the exception no longer holds the tensors.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _log.warning("out of memory with %d episode(s) at once", len(prompts))
        if len(prompts) == 1:
            text = "the baseline ran out of memory; use a smaller model, or another device"
            return [Judgement.unknown(Reason.DETECTOR_OUT_OF_MEMORY, text)]
        half = len(prompts) // 2
        first = self._run(prompts[:half], pictures[:half])
        return first + self._run(prompts[half:], pictures[half:])

    @torch.inference_mode()
    def _generate(self, prompts: list[str], pictures: list[np.ndarray]) -> list[Judgement]:
        inputs = self._encode(prompts, pictures)
        lengths = inputs["attention_mask"].sum(1).tolist()
        limit = self._model.config.get_text_config().max_position_embeddings - MAX_NEW_TOKENS
        if max(lengths) > limit:
            if len(prompts) > 1:
                pairs = zip(prompts, pictures, strict=True)
                return [j for text, picture in pairs for j in self._generate([text], [picture])]
            text = f"the instruction is too long: {lengths[0]} tokens with the picture, at most"
            return [Judgement.unknown(Reason.DETECTOR_ERROR, f"{text} {limit}")]
        out = self._model.generate(
            **inputs,
            max_new_tokens=1 if self._likelier else MAX_NEW_TOKENS,
            return_dict_in_generate=True,
            output_logits=True,
        )
        said = out.sequences[:, inputs["input_ids"].shape[1] :].cpu()
        logits = torch.stack(out.logits, 1).float().cpu()
        return [self._read(*row) for row in zip(said, logits, strict=True)]

    def _encode(self, prompts: list[str], pictures: list[np.ndarray]) -> dict[str, torch.Tensor]:
        """Inputs of the model, padded on the left."""
        tokenizer = self._processor.tokenizer
        if self._processor.chat_template:
            texts = [self._in_chat(prompt) for prompt in prompts]
        else:
            own = getattr(self._processor, "image_token", IMAGE_TOKEN)
            texts = [prompt.replace(IMAGE_TOKEN, str(own)) for prompt in prompts]
        # A chat template may begin with the token that the tokenizer would add once more.
        twice = tokenizer.bos_token is not None and texts[0].startswith(tokenizer.bos_token)
        batch = self._processor(
            images=[[Image.fromarray(picture)] for picture in pictures],
            text=texts,
            padding=True,
            return_tensors="pt",
            **({"add_special_tokens": False} if twice else {}),
        )
        dtype = self._model.dtype
        return {
            key: value.to(self._model.device, dtype if value.is_floating_point() else value.dtype)
            for key, value in batch.items()
            if key != "labels"  # PaliGemma's processor always makes some
        }

    def _in_chat(self, prompt: str) -> str:
        text = prompt.replace(IMAGE_TOKEN, "").strip()
        content = [{"type": "image"}, {"type": "text", "text": text}]
        return self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )

    def _read(self, tokens: torch.Tensor, logits: torch.Tensor) -> Judgement:
        """Judgement of one answer: tokens (n,), logits (n, V) of the same steps."""
        tokenizer = self._processor.tokenizer
        if not logits[0].isfinite().all():
            return Judgement.unknown(Reason.DETECTOR_ERROR, "the model's logits are not numbers")
        if self._likelier:
            success, fail = (
                logits[0, self._first[side]].max() for side in (VoteValue.SUCCESS, VoteValue.FAIL)
            )
            p = torch.sigmoid(success - fail).item()
            words = self._format.words
            return self._format.judgement((words.success if p > 0.5 else words.fail)[0], p)
        answer = tokenizer.decode(tokens, skip_special_tokens=True)
        value = self._format.read(answer)
        if value is VoteValue.ABSTAIN:
            return self._format.judgement(answer, math.nan)
        pieces = [tokenizer.decode([token], skip_special_tokens=True) for token in tokens]
        step = next(i for i, piece in enumerate(pieces) if any(map(str.isalnum, piece)))
        best = {
            side: max(
                logits[step, ids].max().item(),
                logits[step, tokens[step]].item() if side is value else -math.inf,
            )
            for side, ids in self._first.items()
        }
        margin = best[VoteValue.SUCCESS] - best[VoteValue.FAIL]
        return self._format.judgement(answer, torch.sigmoid(torch.tensor(margin)).item())


def _first_tokens(tokenizer: Any, words: AnswerWords) -> dict[VoteValue, list[int]]:
    """Tokens with which answers begin, in any case, with or without a blank before them: those that
    are a whole word, or the first pieces where the vocabulary has none.

    Raises:
        CheckpointError: both answers begin alike.
    """
    whole: dict[VoteValue, set[int]] = {}
    pieces: dict[VoteValue, set[int]] = {}
    for value, said in ((VoteValue.SUCCESS, words.success), (VoteValue.FAIL, words.fail)):
        whole[value], pieces[value] = set(), set()
        spelled = {w for word in said for w in (word, word.capitalize(), word.upper())}
        for text in (blank + word for word in sorted(spelled) for blank in ("", " ")):
            row = tokenizer(text, add_special_tokens=False)["input_ids"]
            texts = [tokenizer.decode([i]).strip().lower() for i in row]
            # A blank of its own is not where an answer begins.
            start = next((n for n, piece in enumerate(texts) if any(map(str.isalnum, piece))), 0)
            (whole if texts[start] in said else pieces)[value].add(row[start])
    first = {value: whole[value] or pieces[value] for value in whole}
    shared = first[VoteValue.SUCCESS] & first[VoteValue.FAIL]
    if not all(ids - shared for ids in first.values()):
        raise CheckpointError(
            f"the tokenizer spells {words.success[0]} and {words.fail[0]} with the same first "
            "token, so that the answers cannot be told apart; choose another format"
        )
    return {value: sorted(ids - shared) for value, ids in first.items()}
