"""The detector: an episode in, a judgement out, one forward pass (paper, Sec. IV-B.2).

Threads: small models want as many threads as there are free cores and `OMP_WAIT_POLICY=PASSIVE`,
or waiting threads burn the cores that the cameras need. The policy is read when torch is first
imported, so the process that owns the detector sets it before that (the worker does).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ifailsense_ros.core.arbitration import VLM_SOURCE, arbitrate
from ifailsense_ros.core.calibration import (
    Limits,
    calibrated,
    check_rates,
    sigmoid,
    vote_log_odds,
)
from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.core.prompt import build_prompt, normalise_instruction
from ifailsense_ros.core.verdict import Judgement, Reason, Vote, VoteValue
from ifailsense_ros.model.calibration import cell_features
from ifailsense_ros.model.checkpoint import LoadedCheckpoint, load_checkpoint
from ifailsense_ros.model.device import choose_device, choose_dtype, is_out_of_memory
from ifailsense_ros.model.shuffle import shuffle_trained_weights
from ifailsense_ros.model.vlm import (
    Answer,
    AnswerReader,
    Inputs,
    encode_pictures,
    encode_prompts,
    one_pass,
    vision_features,
)

_log = logging.getLogger(__name__)

MAX_BATCH = 16


@dataclass(frozen=True, eq=False)
class Measured:
    """A judgement, and what it was made from; the latter is what calibration needs.

    Attributes:
        judgement: of the episode.
        logits: (K + 1,) float64 of the FS blocks and the VLM, raw; NaN where one has no say. None
            where there was no pass.
        cells: (N, T, d) float32 from `cell_features`; None where there was no pass.
    """

    judgement: Judgement
    logits: np.ndarray | None = None
    cells: np.ndarray | None = None


class FailSenseDetector:
    """A loaded checkpoint that judges episodes.

    Args:
        checkpoint: from `load_checkpoint`.
        model_id: what verdicts say of their origin; default the checkpoint's.
        max_missed_failures: the share of failures that may be called SUCCESS; None: any.
        max_false_alarms: the share of successes that may be called FAILURE; None: any.
        guard: whether pictures unlike any in training are UNKNOWN, where the checkpoint can tell.

    Raises:
        ConfigError: a rate that the checkpoint's calibration cannot promise.
    """

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        model_id: str | None = None,
        *,
        max_missed_failures: float | None = None,
        max_false_alarms: float | None = None,
        guard: bool = True,
    ) -> None:
        self._config = checkpoint.config
        self._model = checkpoint.model
        self._processor = checkpoint.processor
        self._fs_blocks = checkpoint.fs_blocks
        self._reader = AnswerReader(checkpoint.processor.tokenizer, self._config.answer_words)
        m, p = self._config.montage, self._config.picture
        self._geometry = MontageGeometry(m.num_pov, m.num_keyframes, m.cell_height, m.cell_width)
        patch = self._model.config.vision_config.patch_size
        self._patches = (p.height // patch, p.width // patch)
        self._model_id = model_id or self._config.model_id
        rates = (max_missed_failures, max_false_alarms)
        check_rates(self._config.calibration, self._config.model_id, *rates)
        self._limits, self._guard = Limits(), None
        if checkpoint.calibration is not None:
            self._limits = Limits.of(checkpoint.calibration.scores, *rates)
            self._guard = checkpoint.calibration.guard
        self._guards = guard

    @property
    def model_id(self) -> str:
        """Name and short hash of the checkpoint, e.g. "sim-tiny@1f3a9c02"."""
        return self._model_id

    @property
    def config(self) -> CheckpointConfig:
        """The checkpoint's settings."""
        return self._config

    def judge(self, episode: Episode) -> Judgement:
        """Judge one episode; see `core.detection.Detector`.

        Raises:
            ValueError: the episode has not the checkpoint's number of keyframes or PoV.
        """
        return self.judge_batch([episode])[0]

    def judge_batch(self, episodes: Sequence[Episode]) -> list[Judgement]:
        """Judge several episodes, up to 16 in one forward pass. Raises as `judge`.

        Several instructions about the same keyframes (the same object) share the vision tower.
        """
        return [measured.judgement for measured in self.measure_batch(episodes)]

    def measure_batch(self, episodes: Sequence[Episode]) -> list[Measured]:
        """As `judge_batch`, with what the judgements were made from."""
        measured: list[Measured] = []
        for start in range(0, len(episodes), MAX_BATCH):
            measured += self._measure_some(episodes[start : start + MAX_BATCH])
        return measured

    @torch.inference_mode()
    def cells_of(self, episodes: Sequence[Episode]) -> np.ndarray:
        """What the guard looks at, (B, N, T, d) float32, by the vision tower alone.

        Raises:
            ValueError: as `judge`.
        """
        parts = []
        for start in range(0, len(episodes), MAX_BATCH):
            some = episodes[start : start + MAX_BATCH]
            pictures = [compose(episode, self._geometry) for episode in some]
            parts.append(self._cells(self._see(encode_pictures(self._processor, pictures))))
        return np.concatenate(parts)

    def _measure_some(self, episodes: Sequence[Episode]) -> list[Measured]:
        results: list[Measured | None] = [None] * len(episodes)
        montages: dict[int, np.ndarray] = {}
        prompts, pictures, places = [], [], []
        for i, episode in enumerate(episodes):
            prompt = self._prompt(episode.instruction)
            if isinstance(prompt, Judgement):
                results[i] = Measured(prompt)
                continue
            key = id(episode.keyframes)
            if key not in montages:
                montages[key] = compose(episode, self._geometry)
            pictures.append(montages[key])
            prompts.append(prompt)
            places.append(i)
        for rows in self._passes(prompts):
            some = self._run([prompts[i] for i in rows], [pictures[i] for i in rows])
            for i, measured in zip(rows, some, strict=True):
                results[places[i]] = measured
        return results

    def _passes(self, prompts: list[str]) -> list[list[int]]:
        """Which rows go into one forward pass: all of them, or those of one length where padding
        counts, since no verdict may depend on who else is in the batch.
        """
        together: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            length = 0
            if not self._config.masks_padding:
                length = encode_prompts(self._processor, [prompt])["input_ids"].shape[1]
            together.setdefault(length, []).append(i)
        return list(together.values())

    def _prompt(self, instruction: str) -> str | Judgement:
        """The prompt, or what to say of an instruction that cannot be asked about."""
        if not normalise_instruction(instruction):
            return Judgement.unknown(Reason.NO_INSTRUCTION, "the instruction is empty")
        try:
            prompt = build_prompt(instruction, self._config.prompt)
        except ConfigError as error:
            return Judgement.unknown(Reason.DETECTOR_ERROR, str(error))
        length = encode_prompts(self._processor, [prompt])["input_ids"].shape[1]
        limit = self._model.config.get_text_config().max_position_embeddings
        if length > limit:
            return Judgement.unknown(
                Reason.DETECTOR_ERROR,
                f"the instruction is too long: {length} tokens with the picture, at most {limit}",
            )
        return prompt

    def _run(self, prompts: list[str], pictures: list[np.ndarray]) -> list[Measured]:
        """One forward pass for all; where memory does not suffice, halves of them."""
        out_of_memory = False
        try:
            inputs = encode_prompts(self._processor, prompts)
            fs_logits, vlm_logits, cells = self._forward(inputs, pictures)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            out_of_memory = True
        if out_of_memory:  # handled here, where the exception no longer holds the tensors
            return self._retry_smaller(prompts, pictures)
        answers = self._reader.read(vlm_logits)
        finite = vlm_logits.isfinite().all(1).tolist()
        far = [math.nan] * len(prompts) if self._guard is None else self._guard.distances(cells)
        measured = []
        for row, answer, is_finite, cell, distance in zip(
            fs_logits, answers, finite, cells, far, strict=True
        ):
            if is_finite:
                judgement = self._decide(row, answer, float(distance))
            else:
                text = "the VLM's logits are not numbers"
                judgement = Judgement.unknown(Reason.DETECTOR_ERROR, text)
            logits = np.array([*row.tolist(), answer.logit])
            judgement = replace(judgement, montage_distance=float(distance))
            measured.append(Measured(judgement, logits, cell))
        return measured

    def _retry_smaller(self, prompts: list[str], pictures: list[np.ndarray]) -> list[Measured]:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _log.warning("out of memory with %d episode(s) in one pass", len(prompts))
        if len(prompts) == 1:
            text = "the detector ran out of memory; use a smaller checkpoint, or another device"
            return [Measured(Judgement.unknown(Reason.DETECTOR_OUT_OF_MEMORY, text))]
        half = len(prompts) // 2
        first = self._run(prompts[:half], pictures[:half])
        return first + self._run(prompts[half:], pictures[half:])

    @torch.inference_mode()
    def _forward(
        self, inputs: Inputs, pictures: list[np.ndarray]
    ) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        """Logits of the FS blocks (B, K) and of the VLM (B, V), on the CPU; cells (B, N, T, d)."""
        number: dict[int, int] = {}  # of each picture that is another one than those before
        rows = [number.setdefault(id(picture), len(number)) for picture in pictures]
        different = list({id(picture): picture for picture in pictures}.values())
        features = self._see(encode_pictures(self._processor, different))
        cells = self._cells(features)[rows]
        device = features.device
        out = one_pass(
            self._model,
            {k: v.to(device) for k, v in inputs.items()},
            self._config.hooked_layers,
            features=features if len(different) == len(rows) else features[rows],
        )
        if not self._config.hooked_layers:
            return torch.zeros(len(out.logits), 0), out.logits.cpu(), cells
        return self._fs_blocks(out.hidden, out.mask).cpu(), out.logits.cpu(), cells

    def _see(self, pixel_values: torch.Tensor) -> torch.Tensor:
        device = next(self._model.parameters()).device
        return vision_features(self._model, pixel_values.to(device))

    def _cells(self, features: torch.Tensor) -> np.ndarray:
        m = self._config.montage
        return cell_features(features, self._patches, m.num_pov, m.num_keyframes)

    def _decide(self, fs_logits: torch.Tensor, answer: Answer, distance: float) -> Judgement:
        """Votes of the raw logits, the guard, then what the calibration makes of them."""
        c, weights = self._config, self._config.vote_weights
        raw = [*fs_logits.sigmoid().tolist(), answer.p_success]
        values = [VoteValue.SUCCESS if p > 0.5 else VoteValue.FAIL for p in raw[:-1]]
        scaled = np.array([*fs_logits.tolist(), answer.logit])
        shown = raw
        if c.calibration is not None:
            degrees = c.calibration.temperatures
            scaled = scaled / [*degrees.fs, degrees.vlm]
            shown = sigmoid(scaled).tolist()
        sources = [*(f"fs:{layer}" for layer in c.hooked_layers), VLM_SOURCE]
        parts = zip(
            sources, [*values, answer.value], shown, [*weights.fs, weights.vlm], strict=True
        )
        judgement = arbitrate([Vote(*part) for part in parts], c.abstain_rule)
        if c.calibration is None or judgement.reason is Reason.DETECTOR_ERROR:
            return judgement
        if self._guards and self._guard is not None:
            limit = c.calibration.guard.threshold
            if not distance <= limit:
                text = (
                    "the pictures are unlike those the checkpoint was trained on: distance "
                    f"{distance:.3g}, where at most {limit:.3g} is like them"
                )
                return Judgement.unknown(Reason.OUT_OF_DISTRIBUTION, text, judgement.votes)
        odds = float(vote_log_odds(scaled, [*weights.fs, weights.vlm]))
        return calibrated(judgement, odds, c.calibration.temperatures.vote, self._limits)


def load_detector(
    spec: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    shuffle_seed: int | None = None,
    num_threads: int | None = None,
    max_missed_failures: float | None = None,
    max_false_alarms: float | None = None,
    guard: bool = True,
) -> FailSenseDetector:
    """Load a checkpoint as a detector.

    Args:
        spec: name of a checkpoint of the package ("sim-tiny"), or a folder.
        device: "auto" (CUDA where there is one), or a torch device.
        dtype: "auto" (bfloat16 on CUDA, else float32), "float32", "bfloat16" or "float16".
        shuffle_seed: None, or permute every trained tensor with this seed: the control that shows
            that verdicts come from the weights. `model_id` says so.
        num_threads: torch's threads in this process; None leaves them.
        max_missed_failures, max_false_alarms, guard: see `FailSenseDetector`.

    Raises:
        CheckpointError: anything wrong with the checkpoint.
        ConfigError: a device or dtype that does not exist here, a rate that cannot be promised.
    """
    if num_threads is not None:
        if num_threads < 1:
            raise ConfigError(f"num_threads is {num_threads}, must be >= 1")
        torch.set_num_threads(num_threads)
    place = choose_device(device)
    checkpoint = load_checkpoint(spec, device=place, dtype=choose_dtype(dtype, place))
    model_id = None
    if shuffle_seed is not None:
        shuffle_trained_weights(checkpoint, shuffle_seed)
        model_id = f"{checkpoint.config.model_id}+shuffled-{shuffle_seed}"
    return FailSenseDetector(
        checkpoint,
        model_id,
        max_missed_failures=max_missed_failures,
        max_false_alarms=max_false_alarms,
        guard=guard,
    )
