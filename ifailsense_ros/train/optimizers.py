"""AdamW, and Muon beside it where a schedule asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.train.schedule import Schedule


class Optimizers:
    """What changes the parameters of some modules that have `requires_grad`.

    Muon makes a step of all directions of a matrix equally long, and so learns a small model from
    nothing in fewer steps. It is for the matrices between a layer's input and its output: rows of
    an embedding are not directions of one, and vectors have no matrix.

    Raises:
        ConfigError: the schedule wants Muon, and this torch has none.
    """

    def __init__(self, modules: Sequence[nn.Module], schedule: Schedule) -> None:
        params = [p for m in modules for p in m.parameters() if p.requires_grad]
        linear = {
            part.weight
            for m in modules
            for part in m.modules()
            if isinstance(part, nn.Linear) and schedule.muon
        }
        # A weight that is an embedding's as well (tied) is an embedding.
        linear -= {
            part.weight for m in modules for part in m.modules() if isinstance(part, nn.Embedding)
        }
        groups = [
            {
                "params": [p for p in params if p.dim() > 1 and p not in linear],
                "weight_decay": schedule.weight_decay,
            },
            {"params": [p for p in params if p.dim() <= 1], "weight_decay": 0.0},
        ]
        adam = torch.optim.AdamW(groups, lr=schedule.lr, betas=schedule.betas)
        self._parts: list[tuple[torch.optim.Optimizer, float]] = [(adam, 1.0)]
        matrices = [p for p in params if p in linear]
        if matrices:
            if not hasattr(torch.optim, "Muon"):
                raise ConfigError(
                    f"the recipe trains with Muon, and torch {torch.__version__} has none: it "
                    "needs torch 2.9 or later"
                )
            muon = torch.optim.Muon(
                matrices,
                lr=schedule.lr,
                weight_decay=schedule.weight_decay,
                adjust_lr_fn="match_rms_adamw",  # so that one learning rate does for both
            )
            self._parts.append((muon, schedule.muon))

    def set_rate(self, lr: float) -> None:
        """The learning rate of the next step."""
        for optimizer, times in self._parts:
            for group in optimizer.param_groups:
                group["lr"] = lr * times

    def step(self) -> None:
        """Change the parameters by their gradients."""
        for optimizer, _ in self._parts:
            optimizer.step()

    def state_dict(self) -> list[dict]:
        """All that a later process needs to go on."""
        return [optimizer.state_dict() for optimizer, _ in self._parts]

    def load_state_dict(self, state: list[dict]) -> None:
        """Go on from `state_dict`."""
        for (optimizer, _), part in zip(self._parts, state, strict=True):
            optimizer.load_state_dict(part)
