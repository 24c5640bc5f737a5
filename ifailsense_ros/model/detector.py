"""The detector: an episode in, a judgement out, one forward pass (paper, Sec. IV-B.2).

Threads: small models want as many threads as there are free cores and `OMP_WAIT_POLICY=PASSIVE`,
or waiting threads burn the cores that the cameras need. The policy is read when torch is first
imported, so the process that owns the detector sets it before that (the worker does).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ifailsense_ros.core.arbitration import VLM_SOURCE, arbitrate
from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.core.prompt import build_prompt, normalise_instruction
from ifailsense_ros.core.verdict import Judgement, Reason, Vote, VoteValue
from ifailsense_ros.model.checkpoint import LoadedCheckpoint, load_checkpoint
from ifailsense_ros.model.vlm import (
    Answer,
    AnswerReader,
    Inputs,
    encode_pictures,
    encode_prompts,
    one_pass,
)

_log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAX_BATCH = 16


class FailSenseDetector:
    """A loaded checkpoint that judges episodes.

    Args:
        checkpoint: from `load_checkpoint`.
        model_id: what verdicts say of their origin; default the checkpoint's.
    """

    def __init__(self, checkpoint: LoadedCheckpoint, model_id: str | None = None) -> None:
        self._config = checkpoint.config
        self._model = checkpoint.model
        self._processor = checkpoint.processor
        self._fs_blocks = checkpoint.fs_blocks
        self._reader = AnswerReader(checkpoint.processor.tokenizer, self._config.answer_words)
        m = self._config.montage
        self._geometry = MontageGeometry(m.num_pov, m.num_keyframes, m.cell_height, m.cell_width)
        self._model_id = model_id or self._config.model_id

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
        """Judge several episodes, up to 16 in one forward pass. Raises as `judge`."""
        judgements: list[Judgement] = []
        for start in range(0, len(episodes), MAX_BATCH):
            judgements += self._judge_some(episodes[start : start + MAX_BATCH])
        return judgements

    def _judge_some(self, episodes: Sequence[Episode]) -> list[Judgement]:
        results: list[Judgement | None] = [None] * len(episodes)
        prompts, pictures, places = [], [], []
        for i, episode in enumerate(episodes):
            prompt = self._prompt(episode.instruction)
            if isinstance(prompt, Judgement):
                results[i] = prompt
                continue
            pictures.append(compose(episode, self._geometry))
            prompts.append(prompt)
            places.append(i)
        if prompts:
            for i, judgement in zip(places, self._run(prompts, pictures), strict=True):
                results[i] = judgement
        return results

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

    def _run(self, prompts: list[str], pictures: list[np.ndarray]) -> list[Judgement]:
        """One forward pass for all; where memory does not suffice, halves of them."""
        out_of_memory = False
        try:
            inputs = encode_prompts(self._processor, prompts)
            fs_p, vlm_logits = self._forward(inputs, encode_pictures(self._processor, pictures))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            out_of_memory = True
        if out_of_memory:  # handled here, where the exception no longer holds the tensors
            return self._retry_smaller(prompts, pictures)
        answers = self._reader.read(vlm_logits)
        finite = vlm_logits.isfinite().all(1).tolist()
        return [
            self._arbitrate(row, answer)
            if is_finite
            else Judgement.unknown(Reason.DETECTOR_ERROR, "the VLM's logits are not numbers")
            for row, answer, is_finite in zip(fs_p.tolist(), answers, finite, strict=True)
        ]

    def _retry_smaller(self, prompts: list[str], pictures: list[np.ndarray]) -> list[Judgement]:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _log.warning("out of memory with %d episode(s) in one pass", len(prompts))
        if len(prompts) == 1:
            text = "the detector ran out of memory; use a smaller checkpoint, or another device"
            return [Judgement.unknown(Reason.DETECTOR_OUT_OF_MEMORY, text)]
        half = len(prompts) // 2
        first = self._run(prompts[:half], pictures[:half])
        return first + self._run(prompts[half:], pictures[half:])

    @torch.inference_mode()
    def _forward(
        self, inputs: Inputs, pixel_values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The FS blocks' p_success (B, K) and the VLM's logits (B, V), on the CPU."""
        device = next(self._model.parameters()).device
        inputs = {k: v.to(device) for k, v in inputs.items()}
        out = one_pass(
            self._model,
            inputs,
            self._config.hooked_layers,
            pixel_values=pixel_values.to(device),
        )
        if not self._config.hooked_layers:
            return torch.zeros(len(out.logits), 0), out.logits.cpu()
        return self._fs_blocks(out.hidden, out.mask).sigmoid().cpu(), out.logits.cpu()

    def _arbitrate(self, fs_probabilities: list[float], answer: Answer) -> Judgement:
        votes = []
        weights = self._config.vote_weights
        for layer, p, weight in zip(
            self._config.hooked_layers, fs_probabilities, weights.fs, strict=True
        ):
            value = VoteValue.SUCCESS if p > 0.5 else VoteValue.FAIL
            votes.append(Vote(f"fs:{layer}", value, p, weight))
        votes.append(Vote(VLM_SOURCE, answer.value, answer.p_success, weights.vlm))
        return arbitrate(votes, self._config.abstain_rule)


def load_detector(
    spec: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    shuffle_seed: int | None = None,
    num_threads: int | None = None,
) -> FailSenseDetector:
    """Load a checkpoint as a detector.

    Args:
        spec: name of a checkpoint of the package ("sim-tiny"), or a folder.
        device: "auto" (CUDA where there is one), or a torch device.
        dtype: "auto" (bfloat16 on CUDA, else float32), "float32", "bfloat16" or "float16".
        shuffle_seed: None, or permute every trained tensor with this seed: the control that shows
            that verdicts come from the weights. `model_id` says so.
        num_threads: torch's threads in this process; None leaves them.

    Raises:
        CheckpointError: anything wrong with the checkpoint.
        ConfigError: a device or dtype that does not exist here.
    """
    if num_threads is not None:
        if num_threads < 1:
            raise ConfigError(f"num_threads is {num_threads}, must be >= 1")
        torch.set_num_threads(num_threads)
    place = choose_device(device)
    checkpoint = load_checkpoint(spec, device=place, dtype=choose_dtype(dtype, place))
    if shuffle_seed is None:
        return FailSenseDetector(checkpoint)
    shuffle_trained_weights(checkpoint, shuffle_seed)
    return FailSenseDetector(checkpoint, f"{checkpoint.config.model_id}+shuffled-{shuffle_seed}")


def shuffle_trained_weights(checkpoint: LoadedCheckpoint, seed: int) -> None:
    """Permute the elements of every trained tensor in place; shapes and statistics stay.

    The language model, the projector (the adapter is merged into them) and the FS blocks; not the
    encoder, which nobody trained.
    """
    generator = torch.Generator().manual_seed(seed)
    inner = checkpoint.model.model
    modules: list[nn.Module] = [
        inner.multi_modal_projector,
        inner.language_model,
        checkpoint.model.lm_head,
        checkpoint.fs_blocks,
    ]
    done: set[int] = set()
    with torch.no_grad():
        for module in modules:
            for tensor in module.state_dict(keep_vars=True).values():
                # the tied head is the embedding again; counters are not weights
                if tensor.data_ptr() in done or not tensor.is_floating_point():
                    continue
                done.add(tensor.data_ptr())
                order = torch.randperm(tensor.numel(), generator=generator)
                flat = tensor.detach().cpu().flatten()
                tensor.data.copy_(flat[order].view(tensor.shape))


def choose_device(device: str) -> torch.device:
    """The torch device; "auto" takes CUDA where there is one. Raises ConfigError."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        text = " ".join(str(error).split())[:120]
        raise ConfigError(f"device {device!r} is not available here ({text}); use auto") from None
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype of the VLM on that device. Raises ConfigError."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r}: must be auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def is_out_of_memory(error: BaseException) -> bool:
    """Out of memory in any of the ways torch reports it (the CPU allocator: a RuntimeError)."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return (
        "can't allocate memory" in text
        or "not enough memory" in text
        or ("CUDA error: out of memory" in text)
    )
