"""How long a stage is trained, and how fast."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: optimiser steps at most; 0 where `epochs` says it.
        lr: peak learning rate.
        warmup: linear warm-up, in steps, or as a share of all steps where it is below 1.
        final: learning rate at the end, as a share of the peak (cosine in between).
        weight_decay: on matrices; vectors (norms, biases) have none.
        betas: of AdamW.
        muon: the matrices of the layers are trained by Muon, at this multiple of the learning rate;
            0: by AdamW, as embeddings and vectors are in any case.
        clip: gradient norm.
        eval_every: steps between validations; 0: once an epoch.
        patience: validations without a better one before the stage stops; 0 never stops early.
        seed: of batches, dropout and nothing else.
        accumulate: batches a step; shared out where there are several processes, each of which
            takes at least one.
        epochs: passes over the data instead of a number of steps.
    """

    steps: int
    lr: float
    warmup: float = 50
    final: float = 0.02
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    eval_every: int = 100
    patience: int = 0
    seed: int = 42
    accumulate: int = 1
    epochs: float = 0
    muon: float = 0

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warmup = self.warmup if self.warmup >= 1 else self.warmup * self.steps
        warm = min(1.0, (step + 1) / max(1, warmup))
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, self.steps))))
        return self.lr * warm * (self.final + (1 - self.final) * cosine)

    def batches(self, processes: int) -> int:
        """Batches a step, over all processes: `accumulate`, rounded up so that all have as many."""
        return math.ceil(self.accumulate / processes) * processes

    def in_steps(self, samples: int, batch: int, processes: int = 1) -> Schedule:
        """The same with `steps` (and `eval_every`) instead of epochs.

        Args:
            samples: in the data set.
            batch: samples of one batch.
            processes: that share a step.
        """
        if not self.epochs:
            return self
        an_epoch = samples / (batch * self.batches(processes))
        steps = max(1, math.ceil(self.epochs * an_epoch))
        return replace(
            self, steps=steps, epochs=0, eval_every=self.eval_every or max(1, round(an_epoch))
        )
