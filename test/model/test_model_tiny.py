"""sim-tiny's untrained base: tokenizer, encoder, pictures of any aspect, the folder on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.core.checkpoint import sha256_of
from ifailsense_ros.core.errors import CheckpointError, ConfigError
from ifailsense_ros.model.tiny import (
    ANSWER_WORDS,
    INDEX_FILE,
    LANGUAGE_SHARD,
    VISION_SHARD,
    build_tiny,
    encoder_path,
    save_tiny,
    train_tokenizer,
)
from ifailsense_ros.model.vlm import (
    encode_pictures,
    encode_prompts,
    forward_from_vision,
    vision_features,
)

TEXTS = ["evaluate en", "lift the red block", "pull the handle to open the drawer."]
PROMPT = "<image> evaluate en lift the red block"
# of the committed encoder, as NOTICE and scripts/extract_encoder.py have it
ENCODER_SHA256 = "9ca6582e7c9548aa44c10c9db4af3e81ad051c0d98b08f3499d4c4d91786d8ff"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS)


@pytest.fixture(scope="module")
def tiny():
    """Small picture: the encoder is the real one, and slow."""
    return build_tiny(TEXTS, (28, 42))


def _logits(model, processor, seed=0):
    size = processor.image_processor.size
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (size["height"], size["width"], 3), dtype=np.uint8)
    with torch.no_grad():
        features = vision_features(model, encode_pictures(processor, [picture]))
        assert features.shape[1] == processor.image_seq_length
        return forward_from_vision(model, encode_prompts(processor, [PROMPT]), features)


def test_every_word_is_one_token_alone_and_after_a_blank(tokenizer):
    for word in {w for t in TEXTS for w in t.split()} | set(ANSWER_WORDS):
        assert tokenizer.tokenize(word) == [word]
        assert tokenizer.tokenize(f" {word}") == [f"▁{word}"]
    assert tokenizer.tokenize(" lift the red block\n") == ["▁lift", "▁the", "▁red", "▁block", "\n"]


@given(st.text(max_size=40))
def test_any_text_survives_the_round_trip(text):
    """Unknown characters are spelled in bytes; nothing becomes <unk>."""
    tokenizer = _shared_tokenizer()
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text.replace("▁", " ")


_CACHE: list = []


def _shared_tokenizer():
    if not _CACHE:
        _CACHE.append(train_tokenizer(TEXTS))
    return _CACHE[0]


def test_unknown_characters_fall_back_to_bytes(tokenizer):
    tokens = tokenizer.tokenize("ünit")
    assert tokens[:2] == ["<0xC3>", "<0xBC>"]
    assert "".join(tokens[2:]) == "nit"


def test_same_words_same_vocabulary():
    a = train_tokenizer(TEXTS)
    b = train_tokenizer(list(reversed(TEXTS)) + TEXTS)
    assert a.get_vocab() == b.get_vocab()


def test_same_seed_same_model_and_global_random_state_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    models = [build_tiny(TEXTS, (14, 14), seed=s)[0] for s in (1, 1, 2)]
    assert torch.equal(torch.rand(1), expected)
    first, same, other = (m.model.language_model.layers[0].mlp.up_proj.weight for m in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_encoder_is_the_committed_one_frozen_and_its_norm_neutral(tiny):
    model, _ = tiny
    assert sha256_of(encoder_path()) == ENCODER_SHA256
    tower = model.model.vision_tower
    assert not any(p.requires_grad for p in tower.parameters())
    assert torch.equal(tower.layernorm.weight, torch.ones(384))
    assert len(tower.encoder.layer) == 6
    fresh = load_file(encoder_path())["vision_tower.encoder.layer.3.mlp.fc1.weight"]
    assert torch.equal(tower.encoder.layer[3].mlp.fc1.weight, fresh.float())
    assert all(p.requires_grad for p in model.model.multi_modal_projector.parameters())


@pytest.mark.parametrize("picture", [(168, 336), (168, 84), (14, 14), (42, 14)])
def test_pictures_need_not_be_square(picture):
    model, processor = build_tiny(TEXTS, picture)
    assert processor.image_seq_length == picture[0] * picture[1] // 196 + 1
    assert _logits(model, processor).isfinite().all()


def test_tower_knows_the_aspect():
    """2 x 8 patches and 8 x 2 patches get different positions: nothing assumes a square."""
    model, _ = build_tiny(TEXTS, (28, 112))
    flat = torch.zeros(1, 3, 28, 112)
    with torch.no_grad():
        wide = vision_features(model, flat)
        tall = vision_features(model, flat.transpose(2, 3))
        # equal pixels everywhere, so that only positions differ; columns against rows
        grid_wide = wide[:, 1:].view(2, 8, 384)
        grid_tall = tall[:, 1:].view(8, 2, 384).transpose(0, 1)
    assert (grid_wide - grid_tall).abs().max() > 0.1


@pytest.mark.parametrize("picture", [(0, 14), (15, 14), (168, 100)])
def test_picture_must_be_whole_patches(picture):
    with pytest.raises(ConfigError, match="multiples of the 14 px patch"):
        build_tiny(TEXTS, picture)


def test_heads_must_divide():
    with pytest.raises(ConfigError, match="hidden_size 190"):
        build_tiny(TEXTS, (14, 14), hidden_size=190)


def test_folder_round_trip(tiny, tmp_path):
    model, processor = tiny
    folder = save_tiny(model, processor, tmp_path / "base")
    assert sha256_of(folder / VISION_SHARD) == ENCODER_SHA256
    assert not (folder / "model.safetensors").exists()
    loaded, info = PaliGemmaForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
    )
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    theirs = dict(loaded.named_parameters())
    for name, ours in model.named_parameters():
        assert torch.equal(ours.half().float(), theirs[name]), name
    again = PaliGemmaProcessor.from_pretrained(folder, local_files_only=True)
    a, b = encode_prompts(processor, [PROMPT]), encode_prompts(again, [PROMPT])
    assert all(torch.equal(a[k], b[k]) for k in a)
    torch.testing.assert_close(
        _logits(loaded.eval(), again), _logits(model, processor), atol=0.05, rtol=0.05
    )


def test_saving_the_same_model_twice_gives_the_same_bytes(tiny, tmp_path):
    folders = [save_tiny(*tiny, tmp_path / n) for n in ("a", "b")]
    files = sorted(p.name for p in folders[0].iterdir())
    assert {VISION_SHARD, LANGUAGE_SHARD, INDEX_FILE, "config.json", "tokenizer.json"} <= set(files)
    for name in files:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    assert str(tmp_path) not in "".join(
        p.read_text() for p in folders[0].iterdir() if p.suffix == ".json"
    )


def test_index_names_a_shard_for_every_tensor(tiny, tmp_path):
    folder = save_tiny(*tiny, tmp_path / "base")
    places = json.loads((folder / INDEX_FILE).read_text())["weight_map"]
    for shard in (VISION_SHARD, LANGUAGE_SHARD):
        assert {k for k, v in places.items() if v == shard} == set(load_file(folder / shard))


def test_a_changed_encoder_is_not_saved(tmp_path):
    model, processor = build_tiny(TEXTS, (14, 14))
    with torch.no_grad():
        model.model.vision_tower.embeddings.cls_token[0, 0, 0] += 1
    with pytest.raises(CheckpointError, match="stays frozen"):
        save_tiny(model, processor, tmp_path / "base")


def test_an_adapter_is_not_saved_as_base(tmp_path):
    from peft import LoraConfig

    model, processor = build_tiny(TEXTS, (14, 14))
    model.add_adapter(LoraConfig(r=2, target_modules=r".*language_model.*\.q_proj"))
    with pytest.raises(CheckpointError, match="adapter"):
        save_tiny(model, processor, tmp_path / "base")


def test_bad_encoder_files(tmp_path):
    missing = tmp_path / "none.safetensors"
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        build_tiny(TEXTS, (14, 14), encoder=missing)
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"\x80\x04 not safetensors")
    with pytest.raises(CheckpointError, match="no readable encoder"):
        build_tiny(TEXTS, (14, 14), encoder=garbage)
    partial = tmp_path / "partial.safetensors"
    tensors = load_file(encoder_path())
    del tensors["vision_tower.embeddings.cls_token"]
    save_file(tensors, partial)
    with pytest.raises(CheckpointError, match="does not fit"):
        build_tiny(TEXTS, (14, 14), encoder=partial)
