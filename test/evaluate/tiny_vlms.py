"""Tiny random PaliGemma and Qwen2.5-VL folders, and weights that make them say what they shall."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as token_models
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2TokenizerFast,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

sys.path.append(str(Path(__file__).parents[1] / "model"))
from tiny_models import build_model

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen_folder(folder: Path) -> Path:
    """Qwen2.5-VL with a byte-level BPE in which "success" is a token and "fail" is not."""
    learner = Tokenizer(token_models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL),
        show_progress=False,
    )
    learner.train_from_iterator(["success yes no red block fa il"] * 3, trainer)
    tokenizer = Qwen2TokenizerFast(
        tokenizer_object=learner,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
    )
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [2, 3, 3],
                "rope_theta": 10000.0,
            },
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2_5_VLForConditionalGeneration(config).eval()
    # As Qwen's own: settings that must not reach a baseline.
    model.generation_config.do_sample = True
    model.generation_config.repetition_penalty = 1.5
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pixels = {"min_pixels": 56 * 56, "max_pixels": 28 * 28 * 16}
    Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, **pixels).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder


def paligemma_folder(folder: Path) -> Path:
    """PaliGemma with a SigLIP tower; its head is not tied to the embeddings, to be taught."""
    model, processor = build_model("siglip", (28, 28), softcap=50.0)
    for part in (model.config, model.config.text_config):
        part.tie_word_embeddings = False
    model.config.text_config.max_position_embeddings = 2048  # letters are tokens here
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@torch.inference_mode()
def teach(detector, prompts: Sequence[str], pictures: Sequence, answers: Sequence[str]) -> None:
    """Change the head so that greedy decoding gives these answers: each is made the likeliest text
    after its prompt and picture by a least-squares fit of the head to the last hidden states.
    """
    model, tokenizer = detector._model, detector._processor.tokenizer
    states, wanted = [], []
    for prompt, picture, answer in zip(prompts, pictures, answers, strict=True):
        row = tokenizer(answer, add_special_tokens=False)["input_ids"]
        inputs = detector._encode([prompt], [picture])
        for end, token in enumerate([*row, tokenizer.eos_token_id]):
            longer = _lengthened(inputs, row[:end])
            out = model(**longer, output_hidden_states=True, use_cache=False)
            states.append(out.hidden_states[-1][0, -1])
            wanted.append(token)
    target = torch.zeros(len(wanted), model.lm_head.weight.shape[0])
    target[torch.arange(len(wanted)), wanted] = 4.0
    target += torch.rand(target.shape, generator=torch.Generator().manual_seed(5))
    solution = torch.linalg.lstsq(torch.stack(states), target, driver="gelsd").solution
    model.lm_head.weight.copy_(solution.T)


def _lengthened(inputs: dict[str, torch.Tensor], row: list[int]) -> dict[str, torch.Tensor]:
    """Inputs with more text behind them."""
    more = torch.tensor([row], dtype=torch.long)
    fill = {"input_ids": more, "attention_mask": torch.ones_like(more)}
    fill["token_type_ids"] = torch.ones_like(more)
    fill["mm_token_type_ids"] = torch.zeros_like(more)
    return {k: torch.cat([v, fill[k]], 1) if k in fill else v for k, v in inputs.items()}
