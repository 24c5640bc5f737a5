"""How a base is scored: by the logits of the answer words, whatever word it would have said."""

from __future__ import annotations

from ifailsense_ros.model.detector import FailSenseDetector
from ifailsense_ros.model.vlm import AnswerReader, LikelierWord


class AnswerWordDetector(FailSenseDetector):
    """A detector whose VLM must choose one of the answer words (DESIGN 9.8)."""

    def _make_reader(self) -> AnswerReader:
        return LikelierWord(self._processor.tokenizer, self._config.answer_words)
