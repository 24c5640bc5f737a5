"""A split as training sees it: random draws, and the frozen tower's features of the montages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.core.prompt import AS_GIVEN, spelled
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.experts import ExpertSet, episode_of, with_keyframes
from ifailsense_ros.data.records import EXPERT
from ifailsense_ros.data.scene_questions import Asked
from ifailsense_ros.data.smf import ExpertEpisode, Phrasings, draw_negative_task
from ifailsense_ros.train.features import cached_features
from ifailsense_ros.train.settings import Questions, Sampling


@dataclass(frozen=True)
class Drawn:
    """An episode, and sentences that it carried out (right) and did not (wrong).

    Attributes:
        index: row of the features.
        scene: questions about its scene, and the answers.
    """

    index: int
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    scene: Asked = ()


class TrainingSet(ExpertSet):
    """An `ExpertSet` with random draws and cached features.

    Args:
        spelling: of the checkpoint; all sentences are in it.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        kinds: Sequence[str] = (EXPERT,),
        spelling: str = AS_GIVEN,
    ) -> None:
        super().__init__(folder, split, kinds)
        self.experts = [_spelled(e, spelling) for e in self.experts]
        self.phrasings = Phrasings.of(self.experts)
        self._done = [e for e in self.experts if not e.unfinished]
        self._unfinished = [e for e in self.experts if e.unfinished]
        self._with_twin = [e for e in self._done if e.index in self.twins]

    @property
    def scene_texts(self) -> list[str]:
        """Every question about a scene, and every answer."""
        return sorted({text for asked in self.scene_questions for pair in asked for text in pair})

    @property
    def questions_hash(self) -> str:
        """sha256 of all questions about scenes and their answers."""
        return hashlib.sha256(repr(self.scene_questions).encode()).hexdigest()

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

        def montages(number: int) -> Iterator[np.ndarray]:
            for _, row in self.rows_of(number):
                episode = with_keyframes(episode_of(row, full.num_pov), full.num_keyframes)
                yield compose(ablation.apply(episode), geometry)

        # Instructions and labels are no part of the features: such controls share the full ones.
        same = ablation.name in ("instruction_blind", "shuffled_labels")
        shown = "none" if same else ablation.name
        shards = [
            (content, partial(montages, number)) for number, content in enumerate(self.shard_hashes)
        ]
        key = {"geometry": asdict(full), "shown": shown}
        return cached_features(model, processor, shards, key, cache)

    def draw(self, rng: np.random.Generator, sampling: Sampling) -> list[Drawn]:
        """`sampling.pictures` pairs of a right and a wrong sentence, any phrasing of the set.

        A pair is one expert with both, or, with probability `sampling.unfinished`, an expert with
        its right sentence and an unfinished episode with the sentence of what it did not finish.
        """
        drawn = []
        for expert in self._chosen(self._done, rng, sampling, sampling.pictures):
            right = (self.phrasings.draw(expert.task, rng),)
            if self._unfinished and rng.random() < sampling.unfinished:
                (other,) = self._chosen(self._unfinished, rng, sampling, 1)
                drawn.append(Drawn(expert.index, right, ()))
                drawn.append(Drawn(other.index, (), (self._not_finished(other, rng),)))
            else:
                wrong = draw_negative_task(expert, self.categories, rng, sampling.hard)
                drawn.append(Drawn(expert.index, right, (self.phrasings.draw(wrong, rng),)))
        return drawn

    def draw_questions(
        self, rng: np.random.Generator, sampling: Sampling, questions: Questions
    ) -> list[Drawn]:
        """`sampling.pictures` episodes with several sentences each.

        Experts come with `questions.right` and `questions.wrong` sentences, unfinished ones (a
        share `sampling.unfinished` of the episodes; with `sampling.twins` half of them, each after
        its expert) with `questions.unfinished` wrong ones, all of them with `questions.scene`
        questions about the scene.
        """
        if sampling.twins:
            experts = self._chosen(self._with_twin, rng, sampling, sampling.pictures // 2)
            return [
                one
                for expert in experts
                for one in (
                    self._asked_of_expert(expert, rng, sampling, questions),
                    self._asked_of_unfinished(
                        self.experts[self.twins[expert.index]], rng, questions
                    ),
                )
            ]
        unfinished = rng.random(sampling.pictures) < sampling.unfinished
        count = int(unfinished.sum()) if self._unfinished else 0
        done = self._chosen(self._done, rng, sampling, sampling.pictures - count)
        drawn = [self._asked_of_expert(e, rng, sampling, questions) for e in done]
        cut = self._chosen(self._unfinished, rng, sampling, count)
        return [*drawn, *(self._asked_of_unfinished(e, rng, questions) for e in cut)]

    def _asked_of_expert(
        self,
        expert: ExpertEpisode,
        rng: np.random.Generator,
        sampling: Sampling,
        questions: Questions,
    ) -> Drawn:
        texts = self.phrasings.by_task[expert.task]
        order = rng.permutation(len(texts))[: questions.right]
        wrong = [
            draw_negative_task(expert, self.categories, rng, sampling.hard)
            for _ in range(questions.wrong)
        ]
        return Drawn(
            expert.index,
            tuple(texts[i] for i in order),
            tuple(self.phrasings.draw(task, rng) for task in wrong),
            self._scene(expert, rng, questions.scene),
        )

    def _asked_of_unfinished(
        self, episode: ExpertEpisode, rng: np.random.Generator, questions: Questions
    ) -> Drawn:
        wrong = tuple(self._not_finished(episode, rng) for _ in range(questions.unfinished))
        return Drawn(episode.index, (), wrong, self._scene(episode, rng, questions.scene))

    def _scene(self, episode: ExpertEpisode, rng: np.random.Generator, count: int) -> Asked:
        asked = self.scene_questions[episode.index]
        return tuple(asked[i] for i in rng.permutation(len(asked))[:count]) if count else ()

    def _chosen(
        self,
        episodes: Sequence[ExpertEpisode],
        rng: np.random.Generator,
        sampling: Sampling,
        count: int,
    ) -> list[ExpertEpisode]:
        if not count:
            return []
        weight = None
        if sampling.category_weights or sampling.even_sources:
            weight = np.array([sampling.category_weights.get(e.category, 1.0) for e in episodes])
            if sampling.even_sources:
                weight /= self._of_source(episodes)
            weight /= weight.sum()
        return [episodes[int(i)] for i in rng.choice(len(episodes), size=count, p=weight)]

    @staticmethod
    def _of_source(episodes: Sequence[ExpertEpisode]) -> np.ndarray:
        """Of each episode: how many come from where it does."""
        _, which, count = np.unique(
            [e.source for e in episodes], return_inverse=True, return_counts=True
        )
        return count[which]

    def _not_finished(self, episode: ExpertEpisode, rng: np.random.Generator) -> str:
        """A sentence of the task that an unfinished episode was about."""
        return self.phrasings.draw(draw_negative_task(episode, self.categories, rng, 1.0), rng)


def _spelled(expert: ExpertEpisode, spelling: str) -> ExpertEpisode:
    wrong = expert.negative_instruction
    return replace(
        expert,
        instruction=spelled(expert.instruction, spelling),
        negative_instruction=None if wrong is None else spelled(wrong, spelling),
    )
