"""A split as training sees it: the experts, and the frozen tower's features of their montages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.episode_store import read_shard
from ifailsense_ros.data.experts import ExpertSet, episode_of
from ifailsense_ros.data.records import EXPERT
from ifailsense_ros.data.smf import draw_negative_task
from ifailsense_ros.train.features import cached_features
from ifailsense_ros.train.recipes import Sampling


class TrainingSet(ExpertSet):
    """An `ExpertSet` with random draws and cached features."""

    def features(
        self,
        model: PaliGemmaForConditionalGeneration,
        processor: PaliGemmaProcessor,
        full: MontageGeometry,
        ablation: Ablation,
        cache: Path,
    ) -> np.ndarray:
        """Tower features of every episode's montage, float16 (n, n_img, d_vision).

        Args:
            full: geometry of the montage without the ablation.
            cache: folder of the features, shared by all runs.
        """
        geometry = ablation.geometry(full)

        def montages(shard: Path) -> Iterator[np.ndarray]:
            for row in read_shard(shard, kind=EXPERT):
                yield compose(ablation.apply(episode_of(row, full.num_pov)), geometry)

        # Instructions are no part of the features: a model blind to them shares the full ones.
        shown = ablation.name if ablation.name != "instruction_blind" else "none"
        shards = [
            (content, partial(montages, shard))
            for content, shard in zip(self.shard_hashes, self.shards, strict=True)
        ]
        key = {"geometry": asdict(full), "shown": shown}
        return cached_features(model, processor, shards, key, cache)

    def draw(self, rng: np.random.Generator, sampling: Sampling) -> list[tuple[int, str, str]]:
        """Random (index, right instruction, wrong instruction), any phrasing of the set."""
        if sampling.category_weights:
            weight = np.array(
                [sampling.category_weights.get(e.category, 1.0) for e in self.experts]
            )
            chosen = rng.choice(len(weight), size=sampling.pictures, p=weight / weight.sum())
        else:
            chosen = rng.integers(len(self.experts), size=sampling.pictures)
        drawn = []
        for i in chosen:
            expert = self.experts[int(i)]
            wrong = draw_negative_task(expert, self.categories, rng, sampling.hard)
            right_text = self.phrasings.draw(expert.task, rng)
            drawn.append((int(i), right_text, self.phrasings.draw(wrong, rng)))
        return drawn
