"""Which device and number type a model runs in, and what running out of memory looks like."""

from __future__ import annotations

import contextlib
import ctypes

import torch

from ifailsense_ros.core.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
        or "CUDA error: out of memory" in text
        or "ALLOC_FAILED" in text  # of cuBLAS and cuDNN
    )


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next layer's tensors (for the whole process).

    It gives blocks of megabytes back to the kernel at once, and gets them again page by page: 7 %
    of a pass's CPU time at 3B. Does nothing where there is no glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 32 << 20)
        mallopt(_TRIM_THRESHOLD, 1 << 30)
