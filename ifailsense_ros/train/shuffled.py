"""The control of shuffled labels: every stage is told coins in place of what came true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.train.dataset import Drawn, TrainingSet
from ifailsense_ros.train.settings import Questions, Sampling

_COIN = Ablation("shuffled_labels")


class ShuffledSet(TrainingSet):
    """A `TrainingSet` whose sentences are right or wrong by `Ablation.label`, whatever was done.

    A pair of an episode and a sentence has the same coin in every batch and every stage; captions
    follow it. What is asked about scenes, and validation pairs, keep their truth.
    """

    def draw(self, rng: np.random.Generator, sampling: Sampling) -> list[Drawn]:
        """As a `TrainingSet`'s, with other labels."""
        return [_tossed(d) for d in super().draw(rng, sampling)]

    def draw_questions(
        self, rng: np.random.Generator, sampling: Sampling, questions: Questions
    ) -> list[Drawn]:
        """As a `TrainingSet`'s, with other labels."""
        return [_tossed(d) for d in super().draw_questions(rng, sampling, questions)]


def _tossed(drawn: Drawn) -> Drawn:
    sentences = [(text, True) for text in drawn.right] + [(text, False) for text in drawn.wrong]
    coins = [(text, _COIN.label(drawn.index, text, truth)) for text, truth in sentences]
    return replace(
        drawn,
        right=tuple(text for text, right in coins if right),
        wrong=tuple(text for text, right in coins if not right),
    )
