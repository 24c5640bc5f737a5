"""What a batch goes through: the vision tower, the decoder to the FS blocks, the VLM's answer.

Three stages, each tensors in and tensors out, so that each can be captured in a CUDA graph; what
lies between them (which rows go on) is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ifailsense_ros.model.accelerate import (
    Graphs,
    check_acceleration,
    compile_layers,
    explain_compiler,
    padded_batch,
    padded_length,
    warm_lengths,
)
from ifailsense_ros.model.checkpoint import LoadedCheckpoint
from ifailsense_ros.model.images import Normaliser, picture_bytes
from ifailsense_ros.model.staged import StagedPass
from ifailsense_ros.model.vlm import Inputs, vision_features

Wanted = Callable[[torch.Tensor], list[int]]
"""From the FS blocks' logits (B, K) to the rows whose VLM must be asked."""


@dataclass(frozen=True, eq=False)
class BatchOutput:
    """What a batch's voters said.

    Attributes:
        fs: float32 (B, K), logits of the FS blocks, on the CPU.
        asked: rows that the VLM was run for.
        vlm: float32 (len(asked), V or R), its logits, on the CPU.
        features: (P, image tokens, d) of the different pictures, on the device.
        pictures: B, which of these each row has.
    """

    fs: torch.Tensor
    asked: tuple[int, ...]
    vlm: torch.Tensor
    features: torch.Tensor
    pictures: tuple[int, ...]


class Stages:
    """Runs batches through a checkpoint.

    Args:
        checkpoint: loaded.
        answer_rows: see `StagedPass`.

    Raises:
        CheckpointError: the model or its processor is of a kind that cannot be run so.
    """

    def __init__(
        self, checkpoint: LoadedCheckpoint, answer_rows: Sequence[int] | None = None
    ) -> None:
        self._model, self._processor = checkpoint.model, checkpoint.processor
        self._fs_blocks = checkpoint.fs_blocks
        self._pass = StagedPass(self._model, checkpoint.config.hooked_layers, answer_rows)
        self.device = next(self._model.parameters()).device
        self._normalise = Normaliser(self._processor, self.device)
        self._see, self._first, self._second = self._tower, self._to_hooks, self._to_answer
        self._static = False

    @property
    def can_stop(self) -> bool:
        """See `StagedPass`."""
        return self._pass.can_stop

    @property
    def longest(self) -> int:
        """See `StagedPass`."""
        return self._pass.longest

    def accelerate(self, acceleration: str) -> None:
        """Compile, and capture, what one episode with an ordinary instruction needs.

        Args:
            acceleration: one of `accelerate.ACCELERATIONS`.

        Raises:
            ConfigError: there is no such acceleration on this device, or the compiler failed.
        """
        check_acceleration(acceleration, self.device)
        if acceleration == "none":
            return
        self._static = True
        compile_layers(self._model)
        if acceleration == "graphs":
            stages = (self._tower, self._to_hooks, self._to_answer)
            self._see, self._first, self._second = (Graphs(stage) for stage in stages)
        try:
            self._warm_up()
        except Exception as error:  # torch's compilers raise a dozen types
            raise explain_compiler(error) from error

    @torch.inference_mode()
    def look(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        """The vision tower's output (P, image tokens, d) for montages, on the device."""
        shown = picture_bytes(self._processor, pictures)
        (features,) = self._see(shown[self._filled(range(len(shown)))].to(self.device))
        return features[: len(pictures)]

    @torch.inference_mode()
    def run(
        self, inputs: Inputs, pictures: Sequence[np.ndarray], wanted: Wanted | None
    ) -> BatchOutput:
        """Judge a batch.

        Args:
            inputs: from `vlm.encode_prompts`, on the CPU.
            pictures: B montages; the same object several times is looked at once.
            wanted: which rows go on to the VLM where layers are left after the hooks; None: all.
        """
        number: dict[int, int] = {}  # of each picture that is another one than those before
        rows = [number.setdefault(id(picture), len(number)) for picture in pictures]
        features = self.look(list({id(picture): picture for picture in pictures}.values()))
        everyone = list(range(len(rows)))
        filled = self._filled(everyone)
        ids, mask = self._shaped(inputs, filled)
        which = [rows[i] for i in filled]
        seen = features if which == list(range(len(features))) else features[which]
        fs_logits, state = self._first(ids, mask, seen)
        asked, fs_here = everyone, None
        if wanted is not None and self.can_stop:
            fs_here = fs_logits[: len(rows)].float().cpu()
            asked = wanted(fs_here)
        vlm_logits = torch.empty(0)
        if asked:
            going_on = self._filled(asked)
            if going_on != filled:
                state = state[going_on]
                mask = None if mask is None else mask[going_on]
            (vlm_logits,) = self._second(state, mask)
        if fs_here is None:  # only now, so that the device need not wait for us in between
            fs_here = fs_logits[: len(rows)].float().cpu()
        vlm_here = vlm_logits[: len(asked)].float().cpu()
        return BatchOutput(fs_here, tuple(asked), vlm_here, features, tuple(rows))

    def _shaped(
        self, inputs: Inputs, filled: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids and mask (B, L) on the device; no mask where nothing is padded."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        if self._static:
            extra = padded_length(ids.shape[1], self.longest) - ids.shape[1]
            ids = functional.pad(ids, (extra, 0), value=self._processor.tokenizer.pad_token_id)
            mask = functional.pad(mask, (extra, 0), value=False)
        elif bool(mask.all()):
            return ids.to(self.device), None
        return ids[filled].to(self.device), mask[filled].to(self.device)

    def _filled(self, rows: Sequence[int]) -> list[int]:
        """Rows as a batch of a size that was made ready; the first row fills it up."""
        rows = list(rows)
        return rows + rows[:1] * (padded_batch(len(rows)) - len(rows)) if self._static else rows

    def _tower(self, shown: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Stage: the vision tower over uint8 (P, height, width, 3)."""
        return (vision_features(self._model, self._normalise(shown)),)

    def _to_hooks(
        self, ids: torch.Tensor, mask: torch.Tensor | None, features: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Stage: the FS blocks' logits (B, K), and what the VLM would go on from.

        Padding is masked whatever the checkpoint says: an episode by itself has none, and no
        verdict may depend on who else is in the batch.
        """
        hidden = self._pass.first(ids, mask, features)
        if not self._fs_blocks:
            return hidden[-1].new_zeros(len(ids), 0), hidden[-1]
        logits = [block(h.float(), mask) for block, h in zip(self._fs_blocks, hidden, strict=True)]
        return torch.stack(logits, 1), hidden[-1]

    def _to_answer(
        self, state: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        """Stage: the VLM's logits."""
        return (self._pass.second(state, mask),)

    def _warm_up(self) -> None:
        n = self._processor.image_seq_length
        size = self._processor.image_processor.size
        shown = torch.zeros(1, size["height"], size["width"], 3, dtype=torch.uint8)
        with torch.inference_mode():
            for length in warm_lengths(n, self.longest):
                ids = torch.zeros(1, length, dtype=torch.long, device=self.device)
                ids[:, :n] = self._processor.image_token_id
                mask = torch.ones_like(ids, dtype=torch.bool)
                (features,) = self._see(shown.to(self.device))
                state = self._first(ids, mask, features)[-1]
                self._second(state, mask)
