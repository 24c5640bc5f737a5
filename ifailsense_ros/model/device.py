"""Which device and number type a model runs in, and what running out of memory looks like."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

import torch

from ifailsense_ros.core.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def set_threads(num_threads: int | None) -> None:
    """Torch's threads in this process; None leaves them. Raises ConfigError."""
    if num_threads is None:
        return
    if num_threads < 1:
        raise ConfigError(f"num_threads is {num_threads}, must be >= 1")
    torch.set_num_threads(num_threads)


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


def choose_dtype(dtype: str, device: torch.device, *, big: bool = False) -> torch.dtype:
    """The torch dtype of the VLM on that device. Raises ConfigError.

    auto is bfloat16 on CUDA, and on a CPU that multiplies it where the model is `big`: billions of
    parameters take half the memory and a third of the time so. Small ones stay in float32.
    """
    if dtype == "auto":
        half = device.type == "cuda" or (big and device.type == "cpu" and cpu_has_bfloat16())
        return torch.bfloat16 if half else torch.float32
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r}: must be auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def cpu_has_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16; without, it is slower than
    float32.
    """
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def is_out_of_memory(error: BaseException) -> bool:
    """Out of memory in any of the ways torch reports it (the CPU allocator: a RuntimeError)."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return (
        "can't allocate memory" in text
        or "not enough memory" in text
        or "CUDA error: out of memory" in text
        or "ALLOC_FAILED" in text  # of cuBLAS and cuDNN
    )


def has_lost_device(error: BaseException) -> bool:
    """Whether CUDA is of no use to this process any more: every later call would fail as well."""
    text = str(error)
    return "CUDA error" in text and not is_out_of_memory(error)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next layer's tensors (for the whole process).

    It gives blocks of megabytes back to the kernel at once, and gets them again page by page: 8 %
    of a decoder layer's CPU time at 3B. Does nothing where there is no glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 32 << 20)
        mallopt(_TRIM_THRESHOLD, 1 << 30)
