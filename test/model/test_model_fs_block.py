"""FS blocks against an oracle written from the authors' facts, and torch's own attention."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.core.checkpoint import FSHeadSettings
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.model.fs_block import FSBlock, FSBlocks, HybridAttentionPooling

SETTINGS = FSHeadSettings((12, 6), 2, 0.5)
WIDTH = 8


def _randomised(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter and running statistic away from its default."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)
    return module


def _gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def _oracle(state: dict[str, torch.Tensor], tokens: torch.Tensor, heads: int) -> float:
    """Logit of one row of tokens (L, d), number by number, from the facts of the release."""
    s = {k: v.double() for k, v in state.items()}
    x = tokens.double()
    length, width = x.shape

    def linear(name, v):
        return s[f"{name}.weight"] @ v + s[f"{name}.bias"]

    def batch_norm(name, v):
        spread = torch.sqrt(s[f"{name}.running_var"] + 1e-5)
        scaled = (v - s[f"{name}.running_mean"]) / spread
        return scaled * s[f"{name}.weight"] + s[f"{name}.bias"]

    def gelu(v):
        return torch.tensor([_gelu(e) for e in v.tolist()], dtype=torch.double)

    pool = "attention_pooling"
    mlp = [linear(f"{pool}.attn_mlp.2", torch.tanh(linear(f"{pool}.attn_mlp.0", t)))[0] for t in x]
    in_w, in_b = s[f"{pool}.mha.in_proj_weight"], s[f"{pool}.mha.in_proj_bias"]
    query = in_w[:width] @ s[f"{pool}.query"][0, 0] + in_b[:width]
    keys = [in_w[width : 2 * width] @ t + in_b[width : 2 * width] for t in x]
    size = width // heads
    attention = [0.0] * length
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = [math.exp(float(query[part] @ k[part]) / math.sqrt(size)) for k in keys]
        for i, score in enumerate(scores):
            attention[i] += score / sum(scores) / heads
    alpha = float(s[f"{pool}.alpha"])
    mixed = [alpha * float(m) + (1 - alpha) * a for m, a in zip(mlp, attention, strict=True)]
    powers = [math.exp(m - max(mixed)) for m in mixed]
    v = sum(p / sum(powers) * t for p, t in zip(powers, x, strict=True))
    for i in (0, 1):
        block = f"classifier.{i}"
        v = v + linear(f"{block}.residual.fc", gelu(batch_norm(f"{block}.residual.norm", v)))
        v = linear(f"{block}.fc", gelu(batch_norm(f"{block}.norm", v)))
    v = (v - v.mean()) / torch.sqrt(v.var(unbiased=False) + 1e-5)
    v = v * s["classifier.2.weight"] + s["classifier.2.bias"]
    return float(linear("classifier.5", v.clamp(min=0))[0])


@given(st.integers(0, 1000), st.integers(1, 9))
def test_block_equals_the_oracle(seed, length):
    block = _randomised(FSBlock(WIDTH, SETTINGS), seed).eval()
    tokens = torch.randn(2, length, WIDTH, generator=torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        ours = block(tokens)
    for row, logit in zip(tokens, ours.tolist(), strict=True):
        assert logit == pytest.approx(_oracle(block.state_dict(), row, 2), rel=1e-3, abs=1e-3)


@given(st.integers(0, 1000), st.integers(2, 9), st.booleans())
def test_attention_weights_equal_multihead_attention(seed, length, masked):
    pooling = _randomised(HybridAttentionPooling(WIDTH, 4), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    tokens = torch.randn(3, length, WIDTH, generator=generator) * 3
    mask = None
    if masked:
        mask = torch.rand(3, length, generator=generator) > 0.4
        mask[:, -1] = True
    _, theirs = pooling.mha(
        pooling.query.expand(3, -1, -1),
        tokens,
        tokens,
        key_padding_mask=None if mask is None else ~mask,
    )
    torch.testing.assert_close(pooling.attention_weights(tokens, mask), theirs[:, 0])


def test_padding_gets_no_weight():
    block = _randomised(FSBlock(WIDTH, SETTINGS)).eval()
    tokens = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1))
    padded = torch.cat([torch.full((2, 3, WIDTH), 50.0), tokens], 1)
    mask = torch.tensor([[False] * 3 + [True] * 5] * 2)
    with torch.no_grad():
        torch.testing.assert_close(block(padded, mask), block(tokens))
        assert (block(padded) - block(tokens)).abs().max() > 1e-3  # without a mask it counts


def test_masked_gradients_are_numbers():
    block = _randomised(FSBlock(WIDTH, SETTINGS)).train()
    tokens = torch.randn(4, 6, WIDTH)
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[0, :5] = False
    block(tokens, mask).sum().backward()
    grads = {n: p.grad for n, p in block.named_parameters()}
    assert all(g.isfinite().all() for g in grads.values() if g is not None)
    assert grads["attention_pooling.query"].abs().sum() > 0
    assert grads["attention_pooling.attn_mlp.0.weight"].abs().sum() > 0
    assert grads["attention_pooling.mha.out_proj.weight"] is None  # the discarded part


def test_size_and_names_are_the_authors():
    """35,555,331 parameters a head at the width of Gemma2-2B; alpha starts at one half."""
    with torch.device("meta"):
        block = FSBlock(2304, FSHeadSettings((1024, 256), 4, 0.5))
    assert sum(p.numel() for p in block.parameters()) == 35_555_331
    names = set(block.state_dict())
    assert {
        "attention_pooling.attn_mlp.0.weight",
        "attention_pooling.attn_mlp.2.bias",
        "attention_pooling.query",
        "attention_pooling.mha.in_proj_weight",
        "attention_pooling.mha.out_proj.bias",
        "attention_pooling.alpha",
        "classifier.0.residual.norm.running_mean",
        "classifier.0.residual.fc.weight",
        "classifier.0.norm.running_var",
        "classifier.1.fc.bias",
        "classifier.2.weight",
        "classifier.5.weight",
    } <= names
    assert HybridAttentionPooling(8, 2).alpha.item() == 0.5


def test_dropout_is_where_it_belongs():
    block = FSBlock(WIDTH, SETTINGS).train()
    tokens = torch.randn(8, 3, WIDTH)
    assert not torch.equal(block(tokens), block(tokens))
    block.eval()
    assert torch.equal(block(tokens), block(tokens))


def test_blocks_take_one_layer_each_in_any_float_type():
    blocks = _randomised(FSBlocks(2, WIDTH, SETTINGS)).eval()
    hidden = [torch.randn(3, 4, WIDTH), torch.randn(3, 4, WIDTH)]
    with torch.no_grad():
        logits = blocks(hidden)
        assert logits.shape == (3, 2)
        torch.testing.assert_close(logits[:, 1], blocks[1](hidden[1]))
        half = blocks([h.bfloat16() for h in hidden])
    assert half.dtype is torch.float32
    torch.testing.assert_close(half, logits, atol=0.1, rtol=0.1)
    with pytest.raises(ValueError, match="zip"):
        blocks(hidden[:1])


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="pooling_heads 3"):
        FSBlock(WIDTH, FSHeadSettings((4, 2), 3, 0.0))
