"""Rows on disk as one array; what a cache is keyed by."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ifailsense_ros.model.tiny import build_tiny
from ifailsense_ros.train.features import Rows, cached_features, weights_hash


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(sum), st.data())
def test_rows_of_several_parts_are_those_of_the_whole(sizes, data):
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 99, (n, 2, 3)).astype(np.float16) for n in sizes]
    whole, rows = np.concatenate(parts), Rows(parts)
    chosen = data.draw(st.lists(st.integers(0, sum(sizes) - 1)))
    assert rows.shape == whole.shape
    assert np.array_equal(rows[chosen], whole[np.array(chosen, dtype=int)])
    assert rows[chosen].dtype == np.float16


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_that_is_not_there_is_an_error(row):
    with pytest.raises(IndexError):
        Rows([np.zeros((3, 2))])[[row]]


def test_a_hash_of_weights_knows_names_values_and_the_wanted_precision():
    module = nn.Linear(3, 2)
    before = weights_hash(module)
    assert weights_hash(module) == before
    rounded = weights_hash(module, torch.float16)
    with torch.no_grad():
        module.weight[0, 0] += 1e-7
    assert weights_hash(module) != before
    assert weights_hash(module, torch.float16) == rounded
    assert weights_hash(nn.ModuleDict({"a": module})) != weights_hash(nn.ModuleDict({"b": module}))


def test_processes_share_out_shards_whatever_the_others_have_done_by_then(tmp_path, monkeypatch):
    """The second of two processes looks when the first is done with its shard already."""
    model, processor = build_tiny(["a"], (14, 14), intermediate_size=32)
    picture = np.zeros((14, 14, 3), np.uint8)
    shards = [(name, lambda: iter([picture])) for name in ("first", "second")]

    def process(index):
        monkeypatch.setattr(
            "ifailsense_ros.train.features.accelerator",
            lambda: SimpleNamespace(
                process_index=index,
                num_processes=2,
                device=torch.device("cpu"),
                wait_for_everyone=lambda: None,
            ),
        )
        return cached_features(model, processor, shards, {}, tmp_path)

    with pytest.raises(FileNotFoundError):  # nobody waits here, so the other's is not there yet
        process(0)
    assert len(process(1)) == 2
