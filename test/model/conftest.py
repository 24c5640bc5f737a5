"""Fixtures over the tiny random models of `tiny_models`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import base_config, build_model, random_blocks

from ifailsense_ros.model.checkpoint import save_checkpoint


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["dinov2", "siglip"])
def vlm(request):
    """(model, processor) with each tower; SigLIP's keeps Google's soft cap."""
    if request.param == "dinov2":
        return build_model("dinov2")
    return build_model("siglip", (28, 28), softcap=50.0)


@pytest.fixture
def dino():
    """A fresh (model, processor) with a DINOv2 tower, free to be changed."""
    return build_model("dinov2")


@pytest.fixture
def checkpoint(tmp_path: Path, dino) -> Path:
    """A complete checkpoint folder without an adapter."""
    model, processor = dino
    model.save_pretrained(tmp_path / "source")
    processor.save_pretrained(tmp_path / "source")
    config = base_config()
    folder = tmp_path / "tiny-test"
    save_checkpoint(folder, config, base=tmp_path / "source", fs_blocks=random_blocks(config))
    return folder
