"""What one verdict must at least do, and how fast this machine does such things."""

from __future__ import annotations

import time

import torch
from torch import nn

from benchmarks.verdict_models import INSTRUCTION
from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.prompt import build_prompt
from ifailsense_ros.model.checkpoint import LoadedCheckpoint
from ifailsense_ros.model.vlm import encode_prompts


def work_of(loaded: LoadedCheckpoint, config: CheckpointConfig) -> tuple[float, float]:
    """Floating-point operations of one verdict, and bytes of the weights that it reads.

    Matrix products only: linear layers once a token, attention's two products, the vocabulary at
    one position, the FS blocks' pooling.
    """
    prompt = build_prompt(INSTRUCTION, config.prompt)
    length = encode_prompts(loaded.processor, [prompt])["input_ids"].shape[1]
    picture = loaded.processor.image_seq_length
    text = loaded.model.config.get_text_config()
    vision = loaded.model.config.vision_config
    parts = loaded.model.model
    flops = 2.0 * picture * (_linear(parts.vision_tower) + _linear(parts.multi_modal_projector))
    flops += 2.0 * length * _linear(parts.language_model)
    flops += 4.0 * text.num_hidden_layers * length**2 * text.num_attention_heads * text.head_dim
    flops += 4.0 * vision.num_hidden_layers * picture**2 * vision.hidden_size
    flops += 2.0 * text.vocab_size * text.hidden_size
    flops += 2.0 * length * len(config.hooked_layers) * text.hidden_size**2
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    weights += sum(p.numel() * p.element_size() for p in loaded.fs_blocks.parameters())
    return flops, float(weights)


def _linear(module: nn.Module) -> int:
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product: on the CPU a CPU second of the threads set."""
    n = 8192 if device.startswith("cuda") else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2.0 * n**3 / _best(lambda: a @ b, device)


def copy_rate(device: str) -> float:
    """Bytes a second read and written by a large copy."""
    count = 1 << (31 if device.startswith("cuda") else 27)
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return 2.0 * count / _best(lambda: target.copy_(source), device)


def _best(work, device: str, rounds: int = 10) -> float:
    cuda = device.startswith("cuda")
    clock = time.perf_counter if cuda else time.process_time
    times = []
    for _ in range(rounds + 1):
        if cuda:
            torch.cuda.synchronize()
        before = clock()
        work()
        if cuda:
            torch.cuda.synchronize()
        times.append(clock() - before)
    return min(times[1:])
