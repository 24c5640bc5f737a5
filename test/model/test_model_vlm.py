"""The one pass: inputs as the processor makes them, raw layer outputs, last-position logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import TEXTS, pictures_for

from ifailsense_ros.core.checkpoint import AnswerWords
from ifailsense_ros.core.errors import CheckpointError
from ifailsense_ros.core.verdict import VoteValue
from ifailsense_ros.model.attention import FUSED, use_fused_attention
from ifailsense_ros.model.vlm import (
    LORA_TARGETS,
    AnswerReader,
    captured_layers,
    encode_pictures,
    encode_prompts,
    forward_from_vision,
    one_pass,
    vision_features,
)

PROMPTS = [
    "<image> evaluate en lift the red block",
    "<image> evaluate en open the drawer",
    "<image> evaluate en Rotate the blüe block 90° to the left",
]


def _close(a, b, tolerance=2e-5):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def _inputs(processor, prompts=PROMPTS):
    return encode_prompts(processor, prompts), encode_pictures(
        processor, pictures_for(processor, len(prompts))
    )


def test_inputs_equal_the_real_processor(vlm):
    _, processor = vlm
    pictures = pictures_for(processor, 3)
    theirs = processor(images=pictures, text=PROMPTS, return_tensors="pt", padding=True)
    ours = encode_prompts(processor, PROMPTS)
    assert set(ours) == {"input_ids", "attention_mask", "token_type_ids"}
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key
    assert torch.equal(encode_pictures(processor, pictures), theirs["pixel_values"])


def test_suffix_and_labels_equal_the_real_processor(vlm):
    _, processor = vlm
    suffixes = ["success", "fail", "lift the red block"]
    theirs = processor(
        images=pictures_for(processor, 3),
        text=PROMPTS,
        suffix=suffixes,
        return_tensors="pt",
        padding=True,
    )
    ours = encode_prompts(processor, PROMPTS, suffixes)
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


def test_labels_only_where_there_is_something_to_learn(vlm):
    """The processor always returns labels; all -100, they would make the loss NaN."""
    model, processor = vlm
    pictures = pictures_for(processor, 1)
    theirs = processor(images=pictures, text=PROMPTS[:1], return_tensors="pt")
    with torch.no_grad():
        assert math.isnan(model(**theirs).loss)
    assert "labels" not in encode_prompts(processor, PROMPTS[:1])
    with_answer = encode_prompts(processor, PROMPTS[:1], ["success"])
    pixels = encode_pictures(processor, pictures)
    with torch.no_grad():
        assert math.isfinite(model(**with_answer, pixel_values=pixels).loss)


def test_special_tokens_in_an_instruction_are_ordinary_text(vlm):
    model, processor = vlm
    tokenizer = processor.tokenizer
    ids = encode_prompts(processor, ["<image> evaluate en lift <eos> <bos> <pad> block"])
    ids = ids["input_ids"][0].tolist()
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.pad_token_id not in ids
    assert ids.count(processor.image_token_id) == processor.image_seq_length
    assert max(ids) < model.get_input_embeddings().num_embeddings


def test_token_type_ids_matter_and_are_passed(vlm):
    """Without them (or all ones) prefix tokens are attended causally, and nothing says so."""
    model, processor = vlm
    inputs, pixels = _inputs(processor)
    seen = {}
    handle = model.model.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.update(kwargs), with_kwargs=True
    )
    with torch.no_grad():
        ours = one_pass(model, inputs, [], pixel_values=pixels).logits
        causal = {k: v for k, v in inputs.items() if k != "token_type_ids"}
        without = model(**causal, pixel_values=pixels, logits_to_keep=1).logits[:, -1]
    handle.remove()
    assert (ours - without).abs().max() > 1e-2
    assert "token_type_ids" in seen
    with pytest.raises(ValueError, match="token_type_ids"):
        one_pass(model, causal, [], pixel_values=pixels)


def test_hooked_outputs_are_layer_outputs_before_the_final_norm(vlm):
    model, processor = vlm
    inputs, pixels = _inputs(processor)
    with torch.no_grad():
        hidden = one_pass(model, inputs, [0, 1, 2], pixel_values=pixels).hidden
        full = model(**inputs, pixel_values=pixels, output_hidden_states=True)
    for i in (0, 1):  # hidden_states[i + 1] is the output of layer i, but for the last
        _close(hidden[i], full.hidden_states[i + 1])
    last = hidden[2]
    assert (last - full.hidden_states[-1]).abs().max() > 1e-2
    real = inputs["attention_mask"].bool()
    normed = model.model.language_model.norm(last)
    _close(normed[real], full.hidden_states[-1][real])


def test_one_pass_equals_the_naive_two_passes(vlm):
    """generate() for the answer and a second forward for the features, as is usually done."""
    model, processor = vlm
    for i in range(3):
        inputs, pixels = _inputs(processor, PROMPTS[i : i + 1])
        with torch.no_grad():
            ours = one_pass(model, inputs, [0, 2], pixel_values=pixels)
            with captured_layers(model, [0, 2]) as second:
                every = model(**inputs, pixel_values=pixels).logits
            new = model.generate(
                **inputs,
                pixel_values=pixels,
                max_new_tokens=1,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        _close(ours.logits, new.logits[0])
        assert new.sequences[0, -1] == ours.logits.argmax()
        _close(ours.logits, every[:, -1])
        _close(ours.hidden[0], second[0])
        _close(ours.hidden[1], second[2])


def test_last_position_logits_equal_all_position_logits(vlm):
    model, processor = vlm
    inputs, pixels = _inputs(processor)
    with torch.no_grad():
        features = vision_features(model, pixels)
        every = forward_from_vision(model, inputs, features, logits_to_keep=0)
        for keep in (1, 4):
            some = forward_from_vision(model, inputs, features, logits_to_keep=keep)
            assert some.shape[1] == keep
            _close(some, every[:, -keep:])


def test_the_soft_cap_is_applied_exactly_once(dino):
    """PaliGemma's own forward applies it since transformers 5.23 only."""
    model, processor = dino
    inputs, pixels = _inputs(processor)
    found = {}
    for cap in (None, 0.5):
        model.config.get_text_config().final_logit_softcapping = cap
        with torch.no_grad():
            found[cap] = one_pass(model, inputs, [], pixel_values=pixels).logits
    assert found[None].abs().max() > 0.5
    _close(found[0.5], 0.5 * torch.tanh(found[None] / 0.5))


def test_left_padded_batch_equals_singles(vlm):
    model, processor = vlm
    inputs, pixels = _inputs(processor)
    lengths = inputs["attention_mask"].sum(1)
    assert len(set(lengths.tolist())) == 3  # the prompts differ in length, so there is padding
    with torch.no_grad():
        batch = one_pass(model, inputs, [1], pixel_values=pixels)
        for i, prompt in enumerate(PROMPTS):
            one = one_pass(
                model, encode_prompts(processor, [prompt]), [1], pixel_values=pixels[i : i + 1]
            )
            _close(batch.logits[i], one.logits[0], 1e-4)
            _close(batch.hidden[0][i, batch.mask[i]], one.hidden[0][0], 1e-4)
            assert batch.mask[i].sum() == one.mask.sum() == lengths[i]


def test_cached_vision_equals_direct(vlm):
    model, processor = vlm
    inputs, pixels = _inputs(processor)
    with torch.no_grad():
        direct = model(**inputs, pixel_values=pixels, logits_to_keep=1).logits
        features = vision_features(model, pixels)
        _close(forward_from_vision(model, inputs, features), direct)
    assert features.shape[1] == processor.image_seq_length
    with pytest.raises(ValueError, match="either"):
        one_pass(model, inputs, [], pixel_values=pixels, features=features)


def test_gradients_reach_projector_and_language_model_through_cached_features(dino):
    model, processor = dino
    inputs, pixels = _inputs(processor)
    with torch.no_grad():
        features = vision_features(model, pixels)
    forward_from_vision(model, inputs, features).square().sum().backward()
    assert model.model.multi_modal_projector.linear.weight.grad.abs().sum() > 0
    assert model.model.language_model.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.model.vision_tower.parameters())


def test_fused_attention_equals_plain(dino):
    model, processor = dino
    with torch.no_grad():
        for prompts in (PROMPTS, PROMPTS[:1]):  # with and without padding
            inputs, pixels = _inputs(processor, prompts)
            model.model.language_model.set_attn_implementation("eager")
            plain = one_pass(model, inputs, [0, 1, 2], pixel_values=pixels)
            assert use_fused_attention(model.model.language_model)
            assert model.model.language_model.config._attn_implementation == FUSED
            fused = one_pass(model, inputs, [0, 1, 2], pixel_values=pixels)
            _close(fused.logits, plain.logits)
            for a, b in zip(fused.hidden, plain.hidden, strict=True):
                _close(a[plain.mask], b[plain.mask])


def test_soft_cap_keeps_plain_attention(vlm):
    """Also where the library chose the kernel that forgets the cap."""
    model, _ = vlm
    decoder = model.model.language_model
    decoder.set_attn_implementation(FUSED)
    capped = decoder.config.attn_logit_softcapping is not None
    assert use_fused_attention(decoder) is not capped
    assert decoder.config._attn_implementation == ("eager" if capped else FUSED)


def test_lora_targets_only_the_language_model(dino):
    model, processor = dino
    inputs, pixels = _inputs(processor)
    with torch.no_grad():
        before = one_pass(model, inputs, [1], pixel_values=pixels)
    adapted = get_peft_model(
        model,
        LoraConfig(r=2, target_modules=LORA_TARGETS, modules_to_save=["multi_modal_projector"]),
    ).eval()
    names = {n.split(".lora_A")[0] for n, _ in adapted.named_parameters() if ".lora_A" in n}
    assert len(names) == 3 * 3  # q, k, v of three layers
    assert all(".language_model.layers." in n and n[-6:-5] in "qkv" for n in names)
    trainable = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert not any("vision_tower" in n for n in trainable)
    assert any("multi_modal_projector" in n for n in trainable)
    with torch.no_grad():  # a fresh adapter changes nothing; the same functions take the wrapper
        after = one_pass(adapted, inputs, [1], pixel_values=pixels)
    _close(after.logits, before.logits)
    _close(after.hidden[0], before.hidden[0])


def test_pictures_of_any_size_are_squashed(dino):
    _, processor = dino
    picture = np.zeros((30, 20, 3), np.uint8)
    assert encode_pictures(processor, [picture]).shape == (1, 3, 28, 56)


def _logits(processor, **words):
    logits = torch.zeros(1, len(processor.tokenizer))
    for word, value in words.items():
        token = processor.tokenizer.convert_tokens_to_ids(word.replace("_", "▁"))
        assert token != processor.tokenizer.unk_token_id
        logits[0, token] = value
    return logits


@pytest.mark.parametrize(
    ("words", "value", "p"),
    [
        ({"success": 3.0, "fail": 1.0}, VoteValue.SUCCESS, 1 / (1 + math.exp(-2.0))),
        ({"_success": 3.0, "fail": 1.0}, VoteValue.SUCCESS, 1 / (1 + math.exp(-2.0))),
        ({"success": 1.0, "_fail": 4.0}, VoteValue.FAIL, 1 / (1 + math.exp(3.0))),
        ({"success": 1.0, "fail": 2.0, "drawer": 3.0}, VoteValue.ABSTAIN, math.nan),
    ],
)
def test_answer_reading(dino, words, value, p):
    _, processor = dino
    reader = AnswerReader(processor.tokenizer, AnswerWords(("success",), ("fail",)))
    (answer,) = reader.read(_logits(processor, **words))
    assert answer.value is value
    assert answer.p_success == pytest.approx(p, nan_ok=True, rel=1e-4)


def test_answer_words_must_be_tokens(dino):
    _, processor = dino
    with pytest.raises(CheckpointError, match="fail word"):
        AnswerReader(processor.tokenizer, AnswerWords(("success",), ("unheardof",)))


def test_texts_of_the_fixture_are_single_tokens(dino):
    _, processor = dino
    for word in {w for t in TEXTS for w in t.split()}:
        assert len(processor.tokenizer.tokenize(f" {word}")) == 1
