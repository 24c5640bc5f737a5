"""Compiled layers and CUDA graphs: the same arithmetic with fewer and larger kernels.

Both want shapes that come again, so prompts are padded to a multiple of `LENGTH_STEP` tokens and
batches to a power of two. Compiling takes minutes, and happens when the detector is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ifailsense_ros.core.errors import ConfigError, text_of
from ifailsense_ros.model.vlm import base_of

ACCELERATIONS = ("none", "compile", "graphs")
LENGTH_STEP = 16
WARM_TOKENS = 48
"""Tokens of an instruction up to which everything is ready; a longer one compiles when it comes."""

Stage = Callable[..., tuple[torch.Tensor, ...]]


def check_acceleration(acceleration: str, device: torch.device) -> None:
    """Raises ConfigError for a setting that does not exist, or not on this device."""
    if acceleration not in ACCELERATIONS:
        raise ConfigError(f"acceleration {acceleration!r}: must be {', '.join(ACCELERATIONS)}")
    if acceleration == "graphs" and device.type != "cuda":
        raise ConfigError(f"acceleration graphs needs CUDA, not {device}; use compile or none")


def compile_layers(model: nn.Module) -> None:
    """Have the layers of the vision tower and of the decoder compiled, one code for all layers of
    a kind (in place; done at their first call).
    """
    base = base_of(model).model
    tower = base.vision_tower
    encoder = getattr(tower, "vision_model", tower).encoder
    blocks = encoder.layers if hasattr(encoder, "layers") else encoder.layer
    # a code for each padded shape; beyond torch's limit of 8 it would quietly stop compiling
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for layer in (*blocks, *base.language_model.layers):
        layer.compile(dynamic=False)


def padded_length(length: int, longest: int) -> int:
    """The next multiple of `LENGTH_STEP`, but not beyond what the model can take."""
    return min(-(-length // LENGTH_STEP) * LENGTH_STEP, longest)


def padded_batch(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def warm_lengths(shortest: int, longest: int) -> list[int]:
    """Padded lengths that prompts of up to `WARM_TOKENS` tokens more than the shortest have."""
    ends = range(shortest, shortest + WARM_TOKENS + LENGTH_STEP, LENGTH_STEP)
    return sorted({padded_length(end, longest) for end in ends})


class Graphs:
    """A stage that is captured in one CUDA graph a shape.

    What a graph returns is overwritten by the next call with the same shapes.

    Args:
        stage: tensors in, tensors out, on one device; a None among the arguments stays None.
        shapes: at most so many are captured; others are run as they are.
        batch: larger ones are run as they are: launching is no part of their time, and a graph
            keeps its memory.
    """

    def __init__(self, stage: Stage, shapes: int = 32, batch: int = 4) -> None:
        self._stage, self._most, self._largest = stage, shapes, batch
        self._captured: dict[tuple, tuple[torch.cuda.CUDAGraph, list, tuple]] = {}

    def __call__(self, *given: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """The stage's result."""
        key = tuple(None if x is None else (tuple(x.shape), x.dtype) for x in given)
        if key not in self._captured:
            if len(self._captured) >= self._most or len(given[0]) > self._largest:
                return self._stage(*given)
            self._captured[key] = self._capture(given)
        graph, inputs, outputs = self._captured[key]
        for mine, x in zip(inputs, given, strict=True):
            if mine is not None:
                mine.copy_(x)
        graph.replay()
        return outputs

    def _capture(self, given: Sequence[torch.Tensor | None]):
        inputs = [None if x is None else x.clone() for x in given]
        # Capturing wants a few runs before it, on a stream of their own: libraries allocate then.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._stage(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._stage(*inputs)
        return graph, inputs, outputs


def explain_compiler(error: Exception) -> ConfigError:
    """What a user can do about a compiler that failed."""
    return ConfigError(
        f"acceleration: compiling failed ({text_of(error)}); install a C++ compiler (CPU) or the "
        "Triton that belongs to this torch (CUDA), or use acceleration none"
    )
