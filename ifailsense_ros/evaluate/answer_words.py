"""How a base is scored: by the logits of the answer words, whatever word it would have said."""

from __future__ import annotations

import torch

from ifailsense_ros.core.verdict import VoteValue
from ifailsense_ros.model.checkpoint import LoadedCheckpoint
from ifailsense_ros.model.detector import FailSenseDetector
from ifailsense_ros.model.vlm import Answer, AnswerReader


class LikelierWord(AnswerReader):
    """Never abstains: the likelier of the best success word and the best fail word."""

    def read(self, logits: torch.Tensor) -> list[Answer]:
        """Answers for logits (B, V); a tie is no success."""
        best = {v: logits.float()[:, ids].amax(1) for v, ids in self._ids.items()}
        margin = best[VoteValue.SUCCESS] - best[VoteValue.FAIL]
        found = []
        for p, logit in zip(torch.sigmoid(margin).tolist(), margin.tolist(), strict=True):
            value = VoteValue.SUCCESS if p > 0.5 else VoteValue.FAIL
            found.append(Answer(value, p, value.name.lower(), logit))
        return found


class AnswerWordDetector(FailSenseDetector):
    """A detector whose VLM must choose one of the answer words (DESIGN 9.8)."""

    def __init__(self, checkpoint: LoadedCheckpoint, model_id: str | None = None) -> None:
        super().__init__(checkpoint, model_id)
        self._reader = LikelierWord(checkpoint.processor.tokenizer, checkpoint.config.answer_words)
