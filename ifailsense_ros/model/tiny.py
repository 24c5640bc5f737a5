"""sim-tiny's base, untrained: the real PaliGemma classes around a small language model.

Frozen first six blocks of DINOv2-S/14 as vision tower, a linear projector, Gemma2 of 4 layers x
192, and a byte-fallback BPE of the training texts in the real GemmaTokenizer. On disk it is an
ordinary Hugging Face folder, so that nothing downstream knows that it is small.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    Dinov2Config,
    Gemma2Config,
    GemmaTokenizer,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
)

from ifailsense_ros.core.errors import CheckpointError, ConfigError
from ifailsense_ros.model.attention import use_fused_attention
from ifailsense_ros.model.images import make_image_processor
from ifailsense_ros.model.quiet import quiet_transformers

VISION_SHARD = "vision_tower.safetensors"
LANGUAGE_SHARD = "language_model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
VISION_PREFIX = "vision_tower."
PATCH = 14
SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
ANSWER_WORDS = ("success", "fail", "yes", "no")
# characters that stay single tokens, so that a word never seen is spelled and not turned to bytes
SPELLING = "abcdefghijklmnopqrstuvwxyz0123456789.,'-?!:\n▁"
ADAPTER_MARKS = ("lora_", "base_layer", "modules_to_save")
MAX_VOCABULARY = 4096
MAX_TOKENS = 1024  # positions; 289 of them are the default picture's
INIT_SEED = 0


def encoder_path() -> Path:
    """The committed encoder: first six blocks of DINOv2 ViT-S/14, float16 (see NOTICE)."""
    package = Path(str(resources.files("ifailsense_ros.model")))
    return package / "checkpoints" / "sim-tiny" / "base" / VISION_SHARD


def train_tokenizer(texts: Iterable[str]) -> GemmaTokenizer:
    """A byte-fallback BPE in which every word of `texts` and every answer word is one token.

    Each word is learned at the beginning of a text and after a blank. The same words give the same
    vocabulary, in any order.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    words = sorted({w for text in texts for w in text.split()} | set(ANSWER_WORDS))
    byte_tokens = [f"<0x{i:02X}>" for i in range(256)]
    learner = Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS[3], byte_fallback=True, fuse_unk=True))
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_VOCABULARY,
        min_frequency=1,
        show_progress=False,
        special_tokens=[*SPECIAL_TOKENS, *byte_tokens],
        initial_alphabet=list(SPELLING),
    )
    learner.train_from_iterator([form for w in words for form in (w, f" {w}")], trainer)
    state = json.loads(learner.to_str())["model"]
    return GemmaTokenizer(vocab=state["vocab"], merges=[tuple(m) for m in state["merges"]])


def build_processor(
    texts: Iterable[str], picture: tuple[int, int], num_image_tokens: int
) -> PaliGemmaProcessor:
    """The real PaliGemmaProcessor around our tokenizer and an ImageNet-normalising image part.

    Args:
        texts: whose words become tokens.
        picture: (height, width) in pixels given to the vision tower; need not be square.
        num_image_tokens: features the tower gives for such a picture (CLS included).
    """
    image_processor = make_image_processor(picture, num_image_tokens)
    return PaliGemmaProcessor(image_processor=image_processor, tokenizer=train_tokenizer(texts))


def build_tiny(
    texts: Iterable[str],
    picture: tuple[int, int] = (168, 336),
    *,
    hidden_size: int = 192,
    num_layers: int = 4,
    num_heads: int = 4,
    intermediate_size: int = 512,
    encoder: Path | None = None,
    seed: int = INIT_SEED,
) -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor]:
    """Untrained sim-tiny base: frozen encoder loaded, projector and language model initialised.

    Args:
        texts: every text the model shall read or write; each of their words becomes one token.
        picture: (height, width) in pixels, multiples of the patch (14).
        hidden_size: width of the language model, divisible by `num_heads`.
        num_layers: decoder layers.
        num_heads: attention heads, as many key-value heads.
        intermediate_size: width of the decoder's MLPs.
        encoder: safetensors of the vision tower; default: the committed one.
        seed: of the initialisation; the global random state is left alone.

    Returns:
        The model in float32, eval mode, with `vision_tower` not requiring gradients; the processor.

    Raises:
        ConfigError: picture or width that does not divide.
        CheckpointError: the encoder is missing or of another shape.
    """
    height, width = picture
    if height < PATCH or width < PATCH or height % PATCH or width % PATCH:
        raise ConfigError(
            f"picture {height}x{width}: height and width must be multiples of the {PATCH} px patch"
        )
    if hidden_size % num_heads or (hidden_size // num_heads) % 2:
        raise ConfigError(
            f"hidden_size {hidden_size} with {num_heads} heads: a head's width must be whole and "
            "even; change one of them"
        )
    num_image_tokens = (height // PATCH) * (width // PATCH) + 1
    processor = build_processor(texts, picture, num_image_tokens)
    vision = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=6,
        image_size=518,
        patch_size=PATCH,
        use_mask_token=False,
    )
    head_dim = hidden_size // num_heads
    text = Gemma2Config(
        vocab_size=len(processor.tokenizer),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        head_dim=head_dim,
        query_pre_attn_scalar=head_dim,
        max_position_embeddings=MAX_TOKENS,
        sliding_window=MAX_TOKENS,
        # the small model has no need of it, and without it every attention kernel gives the same
        attn_logit_softcapping=None,
    )
    config = PaliGemmaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=processor.image_token_id,
        projection_dim=hidden_size,
        hidden_size=hidden_size,
        vocab_size=text.vocab_size,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PaliGemmaForConditionalGeneration(config)
        initialise_small(model)
    _load_encoder(model, encoder or encoder_path())
    model.model.vision_tower.requires_grad_(False)
    use_fused_attention(model.model.language_model)
    return model.eval(), processor


def initialise_small(model: PaliGemmaForConditionalGeneration) -> None:
    """Scale the projector's and language model's initial weights by their width.

    Transformers' 0.02 is for wide models: at a width of 192 the signal would start nearly dead.
    """
    embeddings = model.get_input_embeddings().weight
    for part in (model.model.multi_modal_projector, model.model.language_model):
        for module in part.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    # read by multiplication with sqrt(width): this makes a token's vector as long as a feature's
    nn.init.normal_(embeddings, std=embeddings.shape[1] ** -0.5)


def save_tiny(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    folder: Path | str,
    *,
    encoder: Path | None = None,
) -> Path:
    """Write a base folder that `from_pretrained` reads: two float16 shards and the settings.

    The encoder's shard is copied byte for byte, so its hash never changes; the other holds the
    projector and the language model. Existing files are replaced.

    Raises:
        CheckpointError: the model's vision tower differs from the encoder's file, or holds
            adapters (merge or unload them first).
    """
    folder = Path(folder)
    encoder = encoder or encoder_path()
    if any(mark in name for name, _ in model.named_parameters() for mark in ADAPTER_MARKS):
        raise CheckpointError(f"{folder}: the model carries an adapter; merge or unload it first")
    folder.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).to(torch.float16)
    with tempfile.TemporaryDirectory(dir=folder) as scratch, quiet_transformers():
        half.save_pretrained(scratch)
        tensors = load_file(Path(scratch) / "model.safetensors")
        for name in ("config.json", "generation_config.json"):
            if (Path(scratch) / name).exists():
                shutil.copyfile(Path(scratch) / name, folder / name)
    vision = {k: v for k, v in tensors.items() if k.startswith(VISION_PREFIX)}
    _check_same(vision, encoder)
    language = {k: v.contiguous() for k, v in tensors.items() if k not in vision}
    if not (folder / VISION_SHARD).exists() or not encoder.samefile(folder / VISION_SHARD):
        shutil.copyfile(encoder, folder / VISION_SHARD)
    save_file(language, folder / LANGUAGE_SHARD, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": sum(v.numel() * v.element_size() for v in tensors.values())},
        "weight_map": {k: VISION_SHARD if k in vision else LANGUAGE_SHARD for k in sorted(tensors)},
    }
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    processor.save_pretrained(folder)
    return folder


def _load_encoder(model: PaliGemmaForConditionalGeneration, path: Path) -> None:
    """Fill the vision tower from a shard in hub layout, through transformers' own renaming."""
    tower = model.model.vision_tower
    try:
        tensors = {k.removeprefix(VISION_PREFIX): v for k, v in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: no readable encoder ({error}); fetch it again") from None
    with tempfile.TemporaryDirectory() as scratch, quiet_transformers():
        tower.config.save_pretrained(scratch)
        save_file(tensors, Path(scratch) / "model.safetensors", metadata={"format": "pt"})
        loaded, info = type(tower).from_pretrained(
            scratch, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
    wrong = sorted({*info["missing_keys"], *info["unexpected_keys"]}, key=str)
    if wrong or info["mismatched_keys"]:
        raise CheckpointError(f"{path}: does not fit the vision tower ({wrong[:3]} ...)")
    tower.load_state_dict(loaded.state_dict())


def _check_same(vision: dict[str, torch.Tensor], encoder: Path) -> None:
    with safe_open(encoder, "pt") as file:
        same = set(file.keys()) == set(vision) and all(
            torch.equal(file.get_tensor(k), v) for k, v in vision.items()
        )
    if not same:
        raise CheckpointError(
            f"{encoder}: the model's vision tower differs from this file; the encoder stays frozen"
        )
