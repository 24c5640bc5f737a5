"""One resumable optimisation loop for every stage.

Each step draws its batch and its dropout from (seed, step) alone, so a run that was killed and
resumed takes the same steps, and ends with the same weights, as one that was not.
"""

from __future__ import annotations

import csv
import json
import math
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: optimiser steps at most.
        lr: peak learning rate.
        warmup: steps of linear warm-up.
        final: learning rate at the end, as a share of the peak (cosine in between).
        weight_decay: on matrices; vectors (norms, biases) have none.
        betas: of AdamW.
        clip: gradient norm.
        eval_every: steps between validations.
        patience: validations without a better one before the stage stops; 0 never stops early.
        seed: of batches, dropout and nothing else.
    """

    steps: int
    lr: float
    warmup: int = 50
    final: float = 0.02
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    eval_every: int = 100
    patience: int = 0
    seed: int = 42

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, self.steps))))
        return self.lr * warm * (self.final + (1 - self.final) * cosine)


class Interrupted(Exception):
    """Ctrl-C: the state is saved, the same command goes on from there."""


def _save(path: Path, state: dict) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def _optimizer(params: list[nn.Parameter], schedule: Schedule) -> torch.optim.AdamW:
    groups = [
        {"params": [p for p in params if p.dim() > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in params if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.lr, betas=schedule.betas)


def _trainable(modules: Iterable[nn.Module]) -> dict[str, torch.Tensor]:
    """Everything a stage may change: parameters with gradients, and buffers such as BatchNorm's."""
    state: dict[str, torch.Tensor] = {}
    for i, module in enumerate(modules):
        for name, p in module.named_parameters():
            if p.requires_grad:
                state[f"{i}.{name}"] = p.data
        for name, b in module.named_buffers():
            state[f"{i}.{name}"] = b
    return state


def _load(modules: list[nn.Module], saved: dict[str, torch.Tensor]) -> None:
    current = _trainable(modules)
    if current.keys() != saved.keys():
        raise ValueError(
            "the saved state is of another model: use a fresh --out folder, or the same settings"
        )
    for name, value in saved.items():
        current[name].copy_(value)


def run(
    modules: list[nn.Module],
    loss_of_step: Callable[[int], dict[str, torch.Tensor]],
    validate: Callable[[], dict[str, float]],
    schedule: Schedule,
    folder: Path,
    *,
    better: str,
    progress: bool = True,
    save_every: int = 50,
) -> dict[str, float]:
    """Train until the validation optimum; the modules end with the best weights.

    Args:
        modules: whose parameters with `requires_grad` are trained.
        loss_of_step: step -> named losses; "loss" is minimised, the others are logged.
        validate: -> named figures on validation data, with the modules in eval mode.
        schedule: steps, rates, early stop.
        folder: holds state.pt (resume), best.pt, log.csv, done.json.
        better: name of the figure of `validate` that is to be large.

    Returns:
        The figures of the best validation, and its step.

    Raises:
        Interrupted: SIGINT; run again to go on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "done.json"
    if done.exists():
        _load(modules, torch.load(folder / "best.pt", weights_only=True))
        return json.loads(done.read_text())
    params = [p for m in modules for p in m.parameters() if p.requires_grad]
    optimizer = _optimizer(params, schedule)
    start, best, waited = 0, {better: -math.inf, "step": -1}, 0
    state_file = folder / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        _load(modules, state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        start, best, waited = state["step"], state["best"], state["waited"]

    def save(step: int) -> None:
        saved = {"modules": _trainable(modules), "optimizer": optimizer.state_dict()}
        _save(state_file, {**saved, "step": step, "best": best, "waited": waited})

    interrupted = []
    previous = signal.signal(signal.SIGINT, lambda *_: interrupted.append(True))
    bar = tqdm(
        total=schedule.steps, initial=start, desc=folder.name, disable=not progress, mininterval=5
    )
    try:
        for step in range(start, schedule.steps):
            for m in modules:
                m.train()
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr_at(step)
            torch.manual_seed(schedule.seed * 1_000_003 + step)
            losses = loss_of_step(step)
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            norm = nn.utils.clip_grad_norm_(params, schedule.clip)
            optimizer.step()
            bar.update()
            row = {k: float(v.detach()) for k, v in losses.items()} | {"grad_norm": float(norm)}
            last = step + 1 == schedule.steps
            if (step + 1) % schedule.eval_every == 0 or last:
                for m in modules:
                    m.eval()
                with torch.no_grad():
                    figures = validate()
                row |= figures
                waited += 1
                if figures[better] > best[better]:
                    best, waited = {**figures, "step": step + 1}, 0
                    _save(folder / "best.pt", _trainable(modules))
                bar.set_postfix({k: f"{v:.3f}" for k, v in row.items()})
            if (step + 1) % 10 == 0 or last:
                _log(folder / "log.csv", {"step": step + 1, "lr": schedule.lr_at(step), **row})
            stop = schedule.patience and waited >= schedule.patience
            if last or stop or interrupted or (step + 1) % save_every == 0:
                save(step + 1)
            if interrupted:
                raise Interrupted(f"stopped after step {step + 1}; the same command goes on")
            if stop:
                break
    finally:
        signal.signal(signal.SIGINT, previous)
        bar.close()
    _load(modules, torch.load(folder / "best.pt", weights_only=True))
    for m in modules:
        m.eval()
    done.write_text(json.dumps(best, indent=1))
    return best


def _log(path: Path, row: dict[str, float]) -> None:
    """Append a row; long format, because validation figures come less often than losses."""
    fresh = not path.exists()
    with path.open("a", newline="") as f:
        out = csv.writer(f)
        if fresh:
            out.writerow(["step", "name", "value"])
        out.writerows((row["step"], k, f"{v:.6g}") for k, v in row.items() if k != "step")
