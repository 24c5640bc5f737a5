"""One resumable optimisation loop for every stage.

A step is made of numbered batches, and each batch draws its samples and its dropout from (seed,
number) alone. So a run that was killed and resumed takes the same steps, and ends with the same
weights, as one that was not; and it does not matter which process takes which batch.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.train.compute import accelerator, anyone, of_main
from ifailsense_ros.train.log import Log, write_text
from ifailsense_ros.train.optimizers import Optimizers
from ifailsense_ros.train.schedule import Schedule

DONE_FILE = "done.json"
STATE_FILE = "state.pt"
BEST_FILE = "best.pt"

_LOG_EVERY = 10


class Interrupted(Exception):
    """Ctrl-C: the state is saved, the same command goes on from there."""


def run(
    modules: list[nn.Module],
    loss_of_batch: Callable[[int], dict[str, torch.Tensor]],
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
        loss_of_batch: number of a batch (with one batch a step: of the step) -> named losses, each
            a mean over the batch; "loss" is minimised, the others are logged.
        validate: -> named figures on validation data, with the modules in eval mode. Called in the
            main process.
        schedule: steps, rates, early stop.
        folder: holds state.pt (resume), best.pt, log.csv, done.json. All processes must see it.
        better: name of the figure of `validate` that is to be large.
        save_every: steps between saved states; every validation saves one as well.

    Returns:
        The figures of the best validation, its step, and the seconds spent.

    Raises:
        Interrupted: SIGINT; run again to go on.
        ConfigError: the loss is not finite, or the folder holds the state of another model, or of
            steps of another size.
    """
    here = accelerator()
    folder.mkdir(parents=True, exist_ok=True)
    for m in modules:
        m.to(here.device)
    done = folder / DONE_FILE
    if done.exists():
        return finished(modules, folder)
    params = [p for m in modules for p in m.parameters() if p.requires_grad]
    optimizers = Optimizers(modules, schedule)
    batches = schedule.batches(here.num_processes)
    start, best, waited, spent = 0, {better: -math.inf, "step": -1}, 0, 0.0
    if (folder / STATE_FILE).exists():
        state = _read(folder / STATE_FILE)
        if state["batches"] != batches:
            raise ConfigError(
                f"{folder}: was begun with {state['batches']} batches a step, and these processes "
                f"make it {batches}; go on with as many as before"
            )
        _load(modules, state["modules"], folder)
        optimizers.load_state_dict(state["optimizer"])
        start, best, waited = state["step"], state["best"], state["waited"]
        spent = state["seconds"]
    began = time.monotonic() - spent
    log = Log(folder, start)

    def save(step: int) -> None:
        if here.is_main_process:
            state = {"modules": _trainable(modules), "optimizer": optimizers.state_dict()}
            reached = {"step": step, "best": best, "waited": waited, "batches": batches}
            _save(folder / STATE_FILE, {**state, **reached, "seconds": time.monotonic() - began})

    # A step's batches are numbered through; this process takes every n-th.
    mine = range(here.process_index, batches, here.num_processes)
    here.gradient_accumulation_steps = len(mine)  # `backward` divides by it
    interrupted = []
    previous = signal.signal(signal.SIGINT, lambda *_: interrupted.append(True))
    bar = tqdm(
        total=schedule.steps,
        initial=start,
        desc=folder.name,
        disable=not (progress and here.is_main_process),
        mininterval=5,
    )
    try:
        for step in range(start, schedule.steps):
            for m in modules:
                m.train()
            optimizers.set_rate(schedule.lr_at(step))
            for p in params:
                p.grad = None
            sums: dict[str, torch.Tensor] = {}
            for number in (step * batches + i for i in mine):
                torch.manual_seed(schedule.seed * 1_000_003 + number)
                losses = loss_of_batch(number)
                here.backward(losses["loss"])
                sums = {k: sums.get(k, 0) + v.detach() / len(mine) for k, v in losses.items()}
            _average_gradients(params)
            norm = here.clip_grad_norm_(params, schedule.clip)
            optimizers.step()
            bar.update()
            last = step + 1 == schedule.steps
            validates = last or (step + 1) % (schedule.eval_every or schedule.steps) == 0
            row = {}
            if validates or (step + 1) % _LOG_EVERY == 0:
                row = {k: float(v) for k, v in sums.items()} | {"grad_norm": float(norm)}
                _check_finite(row, folder.name, step + 1)
            if validates:
                figures = of_main(_validate(modules, validate) if here.is_main_process else None)
                row |= figures
                waited += 1
                if figures[better] > best[better]:
                    best, waited = {**figures, "step": step + 1}, 0
                    if here.is_main_process:
                        _save(folder / BEST_FILE, _trainable(modules))
            if row:
                log.write(step + 1, {"lr": schedule.lr_at(step), **row})
                bar.set_postfix(_shown(row, best, better), refresh=False)
            stop = schedule.patience and waited >= schedule.patience
            asked_to_stop = anyone(bool(interrupted))
            if validates or asked_to_stop or (step + 1) % save_every == 0:
                save(step + 1)
            if asked_to_stop:
                raise Interrupted(f"stopped after step {step + 1}; the same command goes on")
            if stop:
                break
    finally:
        signal.signal(signal.SIGINT, previous)
        bar.close()
    if here.is_main_process:
        best = {**best, "seconds": round(time.monotonic() - began, 1)}
        write_text(done, json.dumps(best, indent=1))
    here.wait_for_everyone()
    return finished(modules, folder)


def finished(modules: list[nn.Module], folder: Path) -> dict[str, float]:
    """Fill the modules with a finished stage's weights; returns its figures.

    Raises:
        ConfigError: the weights are of another model.
    """
    _load(modules, _read(folder / BEST_FILE), folder)
    for m in modules:
        m.eval()
    return json.loads((folder / DONE_FILE).read_text(encoding="utf-8"))


def _validate(modules: list[nn.Module], validate: Callable[[], dict]) -> dict[str, float]:
    for m in modules:
        m.eval()
    with torch.no_grad():
        return validate()


def _check_finite(row: dict[str, float], stage: str, step: int) -> None:
    for name, value in row.items():
        if not math.isfinite(value):
            raise ConfigError(
                f"{stage}: {name} is {value} at step {step}; lower the learning rate (lr) of the "
                "recipe's stage, and remove its folder"
            )


def _shown(row: dict[str, float], best: dict[str, float], better: str) -> dict[str, str]:
    """What the progress bar says: the loss, and the validation so far."""
    shown = {"loss": f"{row['loss']:.3f}"}
    if best["step"] < 0:
        return shown
    if "accuracy" in best:
        shown["accuracy"] = f"{best['accuracy']:.3f}"
    else:
        shown[better] = f"{best[better]:.3f}"
    return shown


# --- parameters -----------------------------------------------------------------------------------


def _average_gradients(params: list[nn.Parameter]) -> None:
    """The mean over the processes, in one message."""
    here = accelerator()
    if here.num_processes == 1:
        return
    for p in params:
        if (
            p.grad is None
        ):  # not used by this process's batches; the others wait for it all the same
            p.grad = torch.zeros_like(p)
    flat = here.reduce(torch.cat([p.grad.flatten().float() for p in params]), "mean")
    for p, grad in zip(params, flat.split([p.numel() for p in params]), strict=True):
        p.grad.copy_(grad.view_as(p))


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


def _load(modules: list[nn.Module], saved: dict[str, torch.Tensor], folder: Path) -> None:
    current = _trainable(modules)
    shapes = {k: v.shape for k, v in current.items()}
    if shapes != {k: v.shape for k, v in saved.items()}:
        raise ConfigError(
            f"{folder}: the saved state is of another model; give a fresh --out folder, or the "
            "settings it was made with"
        )
    for name, value in saved.items():
        current[name].copy_(value)


# --- files ----------------------------------------------------------------------------------------


def _read(path: Path) -> dict:
    return torch.load(path, weights_only=True, map_location="cpu")


def _save(path: Path, state: dict) -> None:
    """A reader, and whoever comes after a kill, sees the old file or the new one."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)
