"""What all baselines share that are asked a question about the montage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.detection import prompt_or_unknown
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.core.verdict import Judgement
from ifailsense_ros.evaluate.baselines.formats import Format


class AskingDetector(ABC):
    """Shows a model the montage and asks whether the instruction was carried out.

    Args:
        config: settings; its prompt is the format's.
        model_id: what verdicts say of their origin.
        fmt: the question.
    """

    def __init__(self, config: CheckpointConfig, model_id: str, fmt: Format) -> None:
        self._config, self._model_id, self._format = config, model_id, fmt
        m = config.montage
        self._geometry = MontageGeometry(m.num_pov, m.num_keyframes, m.cell_height, m.cell_width)

    @property
    def model_id(self) -> str:
        """See `core.detection.Detector`."""
        return self._model_id

    @property
    def config(self) -> CheckpointConfig:
        """See `core.detection.Detector`."""
        return self._config

    def judge(self, episode: Episode) -> Judgement:
        """Judge one episode; see `core.detection.Detector`.

        Raises:
            ValueError: the episode has not the baseline's number of keyframes or PoV.
        """
        return self.judge_batch([episode])[0]

    def judge_batch(self, episodes: Sequence[Episode]) -> list[Judgement]:
        """As `judge`, of each."""
        judgements: list[Judgement | None] = [None] * len(episodes)
        places, prompts, pictures = [], [], []
        for i, episode in enumerate(episodes):
            prompt = self._prompt(episode.instruction)
            if isinstance(prompt, Judgement):
                judgements[i] = prompt
                continue
            places.append(i)
            prompts.append(prompt)
            pictures.append(compose(episode, self._geometry))
        if prompts:
            for i, judgement in zip(places, self._ask(prompts, pictures), strict=True):
                judgements[i] = judgement
        return judgements

    @abstractmethod
    def _ask(self, prompts: list[str], pictures: list[np.ndarray]) -> list[Judgement]:
        """Ask about each picture; one judgement a prompt.

        Args:
            prompts: from the format, with "<image>".
            pictures: montages, uint8 RGB (H, W, 3).
        """

    def _prompt(self, instruction: str) -> str | Judgement:
        """The prompt, or what to say of an instruction that cannot be asked about."""
        return prompt_or_unknown(instruction, self._config)
