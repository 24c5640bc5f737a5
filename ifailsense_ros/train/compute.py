"""Where training runs: device, processes and precision, through `accelerate`.

The same command trains on one CPU core and, under `accelerate launch -m ifailsense_ros.train.run`,
in many processes. Models are not wrapped: every process holds a whole copy and the loop averages
the gradients, which is all that a frozen tower, a LoRA adapter or FS blocks need.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, is_tensorboard_available

from ifailsense_ros.core.errors import ConfigError

PRECISIONS = ("auto", "bf16", "fp32")
TRACKERS = ("tensorboard",)

# One process validates, collects or writes while the others wait for it.
_PATIENCE = timedelta(hours=6)

_accelerator: Accelerator | None = None


def has_bf16() -> bool:
    """Whether this machine multiplies bfloat16 in hardware; emulated, it is slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch < 2.11 does not say: `--precision bf16` is for the user to say then
    features = getattr(torch.cpu, "get_capabilities", dict)()
    return any(features.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def set_up(
    precision: str = "auto", *, log_with: str | None = None, folder: Path | None = None
) -> Accelerator:
    """Choose precision and tracker of this process; before anything is trained.

    Args:
        precision: "bf16" mixes bfloat16 in by autocast, "fp32" does not, "auto" takes bf16 where
            the hardware has it.
        log_with: a tracker of `TRACKERS` that gets the metrics beside the CSV files.
        folder: where it writes.

    Raises:
        ConfigError: the tracker's package is missing.
    """
    global _accelerator
    if log_with is not None and not is_tensorboard_available():
        raise ConfigError(
            "--log-with tensorboard: its package is missing; "
            "pip install '.[tensorboard]' in the checkout"
        )
    bf16 = precision == "bf16" or (precision == "auto" and has_bf16())
    _accelerator = Accelerator(
        mixed_precision="bf16" if bf16 else "no",
        log_with=log_with,
        project_dir=folder,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )
    if log_with is not None:
        _accelerator.init_trackers("tensorboard")
    return _accelerator


def accelerator() -> Accelerator:
    """This process's accelerator; made with the defaults where `set_up` was not called."""
    return _accelerator or set_up()


def uses_bf16() -> bool:
    """Whether `amp` mixes bfloat16 in."""
    return accelerator().mixed_precision == "bf16"


def described() -> str:
    """E.g. "bf16 on cpu, 1 process"."""
    here = accelerator()
    count = here.num_processes
    return (
        f"{'bf16' if uses_bf16() else 'fp32'} on {here.device.type}, {count} process"
        f"{'es' if count > 1 else ''}"
    )


def amp() -> AbstractContextManager:
    """Autocast to the chosen precision: bfloat16 halves a step's time on CPUs with avx512-bf16."""
    return accelerator().autocast()


def of_main(value: Any) -> Any:
    """The main process's `value`, in every process; waits for it."""
    if accelerator().num_processes == 1:
        return value
    return broadcast_object_list([value])[0]


def anyone(flag: bool) -> bool:
    """Whether `flag` is set in any process, so that all of them leave a loop at the same step."""
    here = accelerator()
    if here.num_processes == 1:
        return flag
    return bool(here.reduce(torch.tensor(float(flag), device=here.device), "sum") > 0)
