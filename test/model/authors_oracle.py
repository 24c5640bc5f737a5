"""The authors' detector, written again in plain torch from the facts of their release.

Nothing here imports our model code: it is what the converted files are compared with. The VLM is
transformers' own, with its adapter unmerged, its processor's own inputs and logits at every
position; the heads are the modules below, whose state dicts have the authors' key layout.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Pooling(nn.Module):
    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.attn_mlp = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
        self.query = nn.Parameter(torch.randn(1, 1, width))
        self.mha = nn.MultiheadAttention(width, heads, batch_first=True)
        self.alpha = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query = self.query.expand(len(x), -1, -1)
        _, attention = self.mha(query, x, x, need_weights=True, average_attn_weights=True)
        scores = self.alpha * self.attn_mlp(x)[..., 0] + (1 - self.alpha) * attention[:, 0]
        powers = torch.exp(scores - scores.max(1, keepdim=True).values)
        weights = powers / powers.sum(1, keepdim=True)  # padding is a token like any other
        return (weights[..., None] * x).sum(1)


class Residual(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.fc = nn.BatchNorm1d(width), nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(self.fc(functional.gelu(self.norm(x))))


class Block(nn.Module):
    def __init__(self, width: int, out: int, dropout: float) -> None:
        super().__init__()
        self.residual = Residual(width, dropout)
        self.norm, self.fc = nn.BatchNorm1d(width), nn.Linear(width, out)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.fc(functional.gelu(self.norm(self.residual(x)))))


def classifier(width: int, first: int, second: int, dropout: float = 0.5) -> nn.Sequential:
    return nn.Sequential(
        Block(width, first, dropout),
        Block(first, second, dropout),
        nn.LayerNorm(second),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(second, 1),
    )


class Heads:
    """K heads with every parameter and running statistic random."""

    def __init__(self, width: int, count: int = 3, first: int = 16, second: int = 8) -> None:
        self.pooling = [Pooling(width).eval() for _ in range(count)]
        self.classifier = [classifier(width, first, second).eval() for _ in range(count)]
        draw = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for module in (*self.pooling, *self.classifier):
                for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                    if name.endswith("running_var"):
                        tensor.copy_(torch.rand(tensor.shape, generator=draw) + 0.5)
                    elif name == "alpha":
                        tensor.fill_(0.3)
                    elif tensor.is_floating_point():
                        noise = torch.randn(tensor.shape, generator=draw)
                        tensor.copy_(
                            noise * (0.6 if tensor.dim() < 2 else tensor.shape[-1] ** -0.5)
                        )
                for name, tensor in module.named_parameters():
                    if "norm.weight" in name or name == "2.weight":
                        tensor.add_(1)

    @torch.no_grad()
    def logits(self, hidden: list[torch.Tensor]) -> torch.Tensor:
        """(B, K) from K raw layer outputs (B, L, d)."""
        parts = zip(self.pooling, self.classifier, hidden, strict=True)
        return torch.cat([c(p(h)) for p, c, h in parts], 1)

    def centre(self, logits: torch.Tensor) -> None:
        """Shift each head so that it says yes to half of these episodes."""
        with torch.no_grad():
            for k, head in enumerate(self.classifier):
                head[5].bias.sub_(logits[:, k].median() - 1e-2)

    def file(self) -> dict:
        """What the authors' torch.save is given."""
        content = {"num_classifiers": len(self.pooling), "dropout_rate": 0.5, "epoch": 10}
        for i, (pooling, head) in enumerate(zip(self.pooling, self.classifier, strict=True)):
            content[f"attention_pooling_{i}"] = pooling.state_dict()
            content[f"classifier_{i}"] = head.state_dict()
        return content


def montage(views: np.ndarray) -> np.ndarray:
    """(T, N, H, W, 3) to one picture, time to the right and one view below the other."""
    return np.concatenate([np.concatenate(list(step), 0) for step in views], 1)


def release_rule(num_layers: int) -> list[int]:
    mid = num_layers // 2
    step = (num_layers - mid) // 3
    return [mid, mid + step, num_layers - 1]


@torch.no_grad()
def run(model, processor, pictures: list[np.ndarray], instructions: list[str]):
    """One batch in their manner: (raw outputs of the hooked layers, last position's logits)."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = base.model.language_model.layers
    kept: dict[int, torch.Tensor] = {}

    def keep(i):
        def hook(_module, _args, out):
            kept[i] = out[0] if isinstance(out, tuple) else out

        return hook

    wanted = release_rule(len(layers))
    handles = [layers[i].register_forward_hook(keep(i)) for i in wanted]
    texts = [" ".join(["<image>"]) + " evaluate en " + text for text in instructions]
    batch = processor(
        text=texts, images=pictures, return_tensors="pt", padding="longest", padding_side="left"
    )
    batch.pop("labels", None)
    out = model(**batch, use_cache=False)  # logits at every position
    for handle in handles:
        handle.remove()
    return [kept[i] for i in wanted], out.logits[:, -1]


def said(tokenizer, logits: torch.Tensor) -> float:
    """1, 0, or NaN where the VLM says another word."""
    word = tokenizer.decode([int(logits.argmax())]).strip().lower()
    if word in ("success", "1", "pass"):
        return 1.0
    return 0.0 if word in ("fail", "0", "failure") else math.nan


def verdict(fs_logits: torch.Tensor, vlm: float) -> bool:
    """Their arithmetic: weights 1, 1, 1 and 2; without the VLM's vote two of three."""
    yes = [float(torch.sigmoid(x) > 0.5) for x in fs_logits]
    if math.isnan(vlm):
        return sum(yes) >= 2
    return sum(yes) + 2 * vlm > (3 + 2) / 2


def older_layout(name: str) -> str:
    """An adapter's tensor as peft named it before transformers 4.52."""
    name = name.replace("model.model.language_model.", "model.language_model.model.")
    name = name.replace("model.model.vision_tower.", "model.vision_tower.vision_model.")
    return name.replace("model.model.multi_modal_projector.", "model.multi_modal_projector.")


def layout_of_4_52(name: str) -> str:
    """As since 4.52, when SigLIP still had its inner `vision_model`."""
    return name.replace("vision_tower.", "vision_tower.vision_model.")


LAYOUTS = {"before 4.52": older_layout, "since 4.52": layout_of_4_52, "today": str}


def save_adapter(model, folder: Path, layout: str) -> None:
    """`save_pretrained`, then the names of that layout."""
    from safetensors.torch import load_file, save_file

    model.save_pretrained(folder, save_embedding_layers=False)  # else peft asks the hub
    path = folder / "adapter_model.safetensors"
    tensors = {LAYOUTS[layout](k): v for k, v in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
