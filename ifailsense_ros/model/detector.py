"""The detector: an episode in, a judgement out, one forward pass (paper, Sec. IV-B.2).

Threads: small models want as many threads as there are free cores and `OMP_WAIT_POLICY=PASSIVE`,
or waiting threads burn the cores that the cameras need. The policy is read when torch is first
imported, so the process that owns the detector sets it before that (the worker does).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ifailsense_ros.core.arbitration import LIKELIER_WORD
from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.detection import prompt_or_unknown
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.core.verdict import Judgement, Reason
from ifailsense_ros.model.accelerate import check_acceleration
from ifailsense_ros.model.calibration import cell_features
from ifailsense_ros.model.checkpoint import LoadedCheckpoint, is_big, load_checkpoint
from ifailsense_ros.model.decision import Decision, Measured
from ifailsense_ros.model.device import (
    choose_device,
    choose_dtype,
    has_lost_device,
    is_out_of_memory,
    keep_freed_memory,
    set_threads,
)
from ifailsense_ros.model.quantise import check_quantisation, quantise
from ifailsense_ros.model.shuffle import shuffle_trained_weights
from ifailsense_ros.model.stages import Stages
from ifailsense_ros.model.vlm import AnswerReader, LikelierWord, encode_prompts

_log = logging.getLogger(__name__)

MAX_BATCH = 16
MAX_BATCH_CUDA = 64


class FailSenseDetector:
    """A loaded checkpoint that judges episodes.

    Args:
        checkpoint: from `load_checkpoint`.
        model_id: what verdicts say of their origin; default the checkpoint's.
        max_missed_failures: the share of failures that may be called SUCCESS; None: any.
        max_false_alarms: the share of successes that may be called FAILURE; None: any.
        guard: whether pictures unlike any in training are UNKNOWN, where the checkpoint can tell.
        short_circuit: whether the VLM is left out where it could not change the outcome and layers
            are left after the deepest hook. False runs it always, for whoever wants its vote; the
            outcome and p_success are the same.
        acceleration: one of `accelerate.ACCELERATIONS`; compiles here and now.

    Attributes:
        is_lost: whether it will never judge again, because its device failed; a new process can.

    Raises:
        CheckpointError: the model is of a kind that cannot be run in stages.
        ConfigError: a rate that the checkpoint's calibration cannot promise, an acceleration that
            does not exist here.
    """

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        model_id: str | None = None,
        *,
        max_missed_failures: float | None = None,
        max_false_alarms: float | None = None,
        guard: bool = True,
        short_circuit: bool = True,
        acceleration: str = "none",
    ) -> None:
        self._config = checkpoint.config
        self._model = checkpoint.model
        self._processor = checkpoint.processor
        self._fs_blocks = checkpoint.fs_blocks
        self._reader = self._make_reader()
        self._stages = Stages(checkpoint, self._reader.rows)
        m, p = self._config.montage, self._config.picture
        self._geometry = MontageGeometry(m.num_pov, m.num_keyframes, m.cell_height, m.cell_width)
        patch = self._model.config.vision_config.patch_size
        self._patches = (p.height // patch, p.width // patch)
        self._model_id = model_id or self._config.model_id
        self.is_lost = False
        self._decision = Decision(
            self._config,
            checkpoint.calibration,
            can_stop=self._stages.can_stop,
            max_missed_failures=max_missed_failures,
            max_false_alarms=max_false_alarms,
            guard=guard,
        )
        self._wanted = self._decision.wants_vlm if short_circuit else None
        self._most = MAX_BATCH_CUDA if self._stages.device.type == "cuda" else MAX_BATCH
        self._stages.accelerate(acceleration)

    @property
    def model_id(self) -> str:
        """Name and short hash of the checkpoint, e.g. "sim-tiny@1f3a9c02"."""
        return self._model_id

    @property
    def config(self) -> CheckpointConfig:
        """The checkpoint's settings."""
        return self._config

    @property
    def is_guarded(self) -> bool:
        """Whether pictures unlike any in training are UNKNOWN: asked for, and the checkpoint can
        tell.
        """
        return self._decision.is_guarded

    def judge(self, episode: Episode) -> Judgement:
        """Judge one episode; see `core.detection.Detector`.

        Raises:
            ValueError: the episode has not the checkpoint's number of keyframes or PoV.
        """
        return self.judge_batch([episode])[0]

    def judge_batch(self, episodes: Sequence[Episode]) -> list[Judgement]:
        """Judge several episodes, up to 16 (64 on CUDA) in one forward pass. Raises as `judge`.

        Several instructions about the same keyframes (the same object) share the vision tower.
        """
        return [measured.judgement for measured in self.measure_batch(episodes)]

    def measure_batch(self, episodes: Sequence[Episode]) -> list[Measured]:
        """As `judge_batch`, with what the judgements were made from."""
        measured: list[Measured] = []
        for start in range(0, len(episodes), self._most):
            measured += self._measure_some(episodes[start : start + self._most])
        return measured

    @torch.inference_mode()
    def cells_of(self, episodes: Sequence[Episode]) -> np.ndarray:
        """What the guard looks at, (B, N, T, d) float32, by the vision tower alone.

        Raises:
            ValueError: as `judge`.
        """
        parts = []
        for start in range(0, len(episodes), self._most):
            some = episodes[start : start + self._most]
            pictures = [compose(episode, self._geometry) for episode in some]
            parts.append(self._cells(self._stages.look(pictures)))
        return np.concatenate(parts)

    def _make_reader(self) -> AnswerReader:
        rule, words = self._config.abstain_rule, self._config.answer_words
        kind = LikelierWord if rule == LIKELIER_WORD else AnswerReader
        return kind(self._processor.tokenizer, words)

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
        if prompts:
            for i, measured in zip(places, self._run(prompts, pictures), strict=True):
                results[i] = measured
        return results

    def _prompt(self, instruction: str) -> str | Judgement:
        """The prompt, or what to say of an instruction that cannot be asked about."""
        prompt = prompt_or_unknown(instruction, self._config)
        if isinstance(prompt, Judgement):
            return prompt
        length = encode_prompts(self._processor, [prompt])["input_ids"].shape[1]
        limit = self._stages.longest
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
            out = self._stages.run(inputs, pictures, self._wanted)
            cells = self._cells(out.features)[list(out.pictures)]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                self.is_lost = has_lost_device(error)
                raise
            out_of_memory = True
        if out_of_memory:  # handled here, where the exception no longer holds the tensors
            return self._retry_smaller(prompts, pictures)
        asked = out.asked
        answers = dict(zip(asked, self._reader.read(out.vlm), strict=True)) if asked else {}
        broken = {i for i, row in zip(asked, out.vlm, strict=True) if not row.isfinite().all()}
        broken &= set(self._decision.wants_vlm(out.fs))  # one without a say may be broken
        measured = []
        for i, distance in enumerate(self._decision.distances(cells)):
            judgement, logits = self._decision.judge(out.fs[i], answers.get(i), distance)
            if i in broken:
                text = "the VLM's logits are not numbers"
                judgement = Judgement.unknown(Reason.DETECTOR_ERROR, text)
                judgement = replace(judgement, montage_distance=distance)
            measured.append(Measured(judgement, logits, cells[i]))
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

    def _cells(self, features: torch.Tensor) -> np.ndarray:
        m = self._config.montage
        return cell_features(features, self._patches, m.num_pov, m.num_keyframes)


def load_detector(
    spec: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    shuffle_seed: int | None = None,
    num_threads: int | None = None,
    max_missed_failures: float | None = None,
    max_false_alarms: float | None = None,
    guard: bool = True,
    short_circuit: bool = True,
    acceleration: str = "none",
    quantisation: str = "none",
) -> FailSenseDetector:
    """Load a checkpoint as a detector.

    Args:
        spec: name of a checkpoint of the package ("sim-tiny"), a folder, or
            "hub:<org>/<name>@<revision>".
        device: "auto" (CUDA where there is one), or a torch device.
        dtype: "auto" (`device.choose_dtype`), "float32", "bfloat16" or "float16".
        shuffle_seed: None, or permute every trained tensor with this seed: the control that shows
            that verdicts come from the weights. `model_id` says so.
        num_threads: torch's threads in this process; None leaves them.
        max_missed_failures, max_false_alarms, guard, short_circuit, acceleration: see
            `FailSenseDetector`.
        quantisation: one of `quantise.QUANTISATIONS`; `model_id` says so.

    Raises:
        CheckpointError: anything wrong with the checkpoint.
        ConfigError: a device, dtype, acceleration or quantisation that does not exist here, a rate
            that cannot be promised.
    """
    set_threads(num_threads)
    place = choose_device(device)
    check_acceleration(acceleration, place)
    if place.type == "cpu":
        keep_freed_memory()
    check_quantisation(quantisation)
    if quantisation != "none" and (max_missed_failures, max_false_alarms) != (None, None):
        raise ConfigError(
            f"quantisation {quantisation} with max_missed_failures or max_false_alarms: the rates "
            "were calibrated with the weights as they are; leave one of the two out"
        )
    number_type = choose_dtype(dtype, place, big=dtype == "auto" and is_big(spec))
    # Quantised before they are moved: the card need not hold the weights as they were.
    here = place if quantisation == "none" else "cpu"
    checkpoint = load_checkpoint(spec, device=here, dtype=number_type)
    model_id = None
    if shuffle_seed is not None:
        shuffle_trained_weights(checkpoint, shuffle_seed)
        model_id = f"{checkpoint.config.model_id}+shuffled-{shuffle_seed}"
    if quantisation != "none":
        quantise(checkpoint.model, quantisation)
        checkpoint.model.to(place)
        checkpoint.fs_blocks.to(place)
        model_id = f"{model_id or checkpoint.config.model_id}+{quantisation}"
    return FailSenseDetector(
        checkpoint,
        model_id,
        max_missed_failures=max_missed_failures,
        max_false_alarms=max_false_alarms,
        guard=guard,
        short_circuit=short_circuit,
        acceleration=acceleration,
    )
