"""The authors' files, converted, against an oracle that shares no code with us."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import authors_oracle as oracle
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import build_model, make_episode

from ifailsense_ros import cli
from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.verdict import Outcome, VoteValue
from ifailsense_ros.model.authors_files import release_layers
from ifailsense_ros.model.checkpoint import load_checkpoint
from ifailsense_ros.model.convert import convert, pov_in_names
from ifailsense_ros.model.detector import load_detector
from ifailsense_ros.model.vlm import encode_pictures, encode_prompts, one_pass

DEPTH = 8
INSTRUCTIONS = [
    "lift the red block",
    "rotate the blue block to the left",
    "open",
    "open the drawer and lift it",
    "the block",
]
PLAIN_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SMALL = {"widths": (16, 8), "cell": (14, 14), "num_pov": 2}


@dataclass(frozen=True)
class Release:
    """A release in the authors' layout, and the oracle that it came from."""

    folder: Path
    model: object
    processor: object
    heads: oracle.Heads
    episodes: list

    def pictures(self) -> list[np.ndarray]:
        return [
            oracle.montage(np.array([k.views for k in episode.keyframes]))
            for episode in self.episodes
        ]

    def alone(self):
        """(heads' logits (B, 3), last logits (B, V)), each episode in a batch of its own."""
        rows = [
            oracle.run(self.model, self.processor, [picture], [episode.instruction])
            for picture, episode in zip(self.pictures(), self.episodes, strict=True)
        ]
        fs = torch.cat([self.heads.logits(hidden) for hidden, _ in rows])
        return fs, torch.cat([logits for _, logits in rows])


def _adapted(model):
    """Their recipe: plain names, which adapt SigLIP's q/k/v as well; a projector saved with it."""
    settings = LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=0.05,
        target_modules=PLAIN_TARGETS,
        modules_to_save=["multi_modal_projector"],
    )
    model.name_or_path = "google/paligemma2-3b-mix-224"  # as from_pretrained sets it; peft notes it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        adapted = get_peft_model(model, settings).eval()
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if p.requires_grad:
                scale = 0.5 if "vision_tower" in name else 0.15
                p.add_(torch.randn(p.shape, generator=draw) * scale)
    return adapted


def _answers(model, processor, pictures, texts) -> torch.Tensor:
    """An embedding in which the answer words' rows point along and against what tells these
    episodes apart: the VLM then says success, fail and other words.
    """
    kept = []
    norm = model.get_base_model().model.language_model.norm
    handle = norm.register_forward_hook(lambda _m, _a, out: kept.append(out[:, -1]))
    for picture, text in zip(pictures, texts, strict=True):
        oracle.run(model, processor, [picture], [text])
    handle.remove()
    states = torch.cat(kept)
    mean = states.mean(0) / states.mean(0).norm()
    candidates = torch.linalg.svd(states - states.mean(0))[2][:8]
    candidates = candidates - (candidates @ mean)[:, None] * mean
    even = ((states @ candidates.T > 0).float().mean(0) - 0.5).abs()
    direction = candidates[even.argmin()]
    embedding = model.get_base_model().get_input_embeddings().weight.detach().clone()
    scale = embedding.norm(dim=1).mean() * 8 / direction.norm()
    for word, sign in (("success", 1), ("fail", -1)):
        embedding[processor.tokenizer.convert_tokens_to_ids(word)] = sign * scale * direction
    return embedding


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Release:
    folder = tmp_path_factory.mktemp("release")
    episodes = [make_episode(INSTRUCTIONS[i % 5], seed=i) for i in range(40)]
    model, processor = build_model("siglip", (28, 28), 50.0, DEPTH)
    probe = Release(folder, _adapted(model), processor, None, episodes)
    texts = [e.instruction for e in episodes]
    embedding = _answers(probe.model, processor, probe.pictures(), texts)

    base, processor = build_model("siglip", (28, 28), 50.0, DEPTH)
    with torch.no_grad():
        base.get_input_embeddings().weight.copy_(embedding)
    base.save_pretrained(folder / "base")
    processor.save_pretrained(folder / "base")
    adapted = _adapted(base)
    torch.manual_seed(5)
    heads = oracle.Heads(32)
    made = Release(folder, adapted, processor, heads, episodes)
    heads.centre(made.alone()[0])
    for layout in oracle.LAYOUTS:
        oracle.save_adapter(adapted, folder / layout / "Tiny-2p", layout)
    torch.save(heads.file(), folder / "components_epoch_10.pt")
    return made


def _convert(release: Release, out: Path, layout: str = "before 4.52", **changes):
    return convert(
        release.folder / "components_epoch_10.pt",
        release.folder / layout / "Tiny-2p",
        str(release.folder / "base"),
        out,
        **{**SMALL, **changes},
    )


@pytest.fixture(scope="module")
def converted(release, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "tiny-2p"
    _convert(release, out)
    return out


@pytest.fixture(scope="module")
def truth(release):
    return release.alone()


# --- agreement ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", list(oracle.LAYOUTS))
def test_verdicts_are_the_oracles(release, truth, tmp_path, layout):
    """Logits, votes and outcomes of 40 episodes, one by one; every voter says both."""
    _convert(release, tmp_path / "out", layout)
    detector = load_detector(tmp_path / "out", device="cpu")
    fs_logits, last = truth
    counts = {key: 0 for key in ("success", "fail", "abstain", "outvoted")}
    for i, episode in enumerate(release.episodes):
        measured = detector.measure_batch([episode])[0]
        assert measured.logits[:3] == pytest.approx(fs_logits[i].tolist(), abs=1e-4)
        vlm = oracle.said(release.processor.tokenizer, last[i])
        judgement = measured.judgement
        assert [v.source for v in judgement.votes] == ["fs:4", "fs:5", "fs:7", "vlm"]
        assert [v.weight for v in judgement.votes] == [1.0, 1.0, 1.0, 2.0]
        expected = VoteValue.ABSTAIN if math.isnan(vlm) else VoteValue(int(vlm))
        assert judgement.votes[-1].value is expected
        success = oracle.verdict(fs_logits[i], vlm)
        assert judgement.outcome is (Outcome.SUCCESS if success else Outcome.FAILURE)
        counts["abstain" if math.isnan(vlm) else "success" if vlm else "fail"] += 1
        counts["outvoted"] += not math.isnan(vlm) and success != bool(vlm)
    assert min(counts["success"], counts["fail"]) >= 8, counts  # 20 %
    assert min(counts["abstain"], counts["outvoted"]) >= 1, counts
    yes = (fs_logits > 0).float().mean(0)
    assert (yes.min() >= 0.2) and (yes.max() <= 0.8)
    assert fs_logits.std(0).min() > 0.01  # far above the tolerance


def test_a_padded_batch_is_the_oracles_padded_batch(release, truth, converted):
    """Their pooling counts padding: what a batch of several lengths gives is kept, and differs
    from what each episode gives alone.
    """
    rows = list(range(10))
    pictures = [release.pictures()[i] for i in rows]
    texts = [release.episodes[i].instruction for i in rows]
    hidden, last = oracle.run(release.model, release.processor, pictures, texts)
    expected = release.heads.logits(hidden)

    parts = load_checkpoint(converted)
    inputs = encode_prompts(parts.processor, [f"<image> evaluate en {text}" for text in texts])
    with torch.no_grad():
        out = one_pass(
            parts.model,
            inputs,
            parts.config.hooked_layers,
            pixel_values=encode_pictures(parts.processor, pictures),
        )
        ours = parts.fs_blocks(out.hidden, out.mask)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.logits, last, atol=1e-3, rtol=1e-4)
    padded = ~out.mask.all(1)
    assert 0 < padded.sum() < len(rows)
    apart = (expected - truth[0][rows]).abs().amax(1)
    assert apart[padded].min() > 1e-3
    assert apart[~padded].max() < 1e-4


def test_a_batch_gives_what_each_episode_gives_alone(release, truth, converted):
    """A verdict must not depend on who else is in the batch, other than in a batch of theirs."""
    detector = load_detector(converted, device="cpu")
    measured = detector.measure_batch(release.episodes)
    logits = np.array([m.logits[:3] for m in measured])
    np.testing.assert_allclose(logits, truth[0].numpy(), atol=1e-4)


def test_siglips_part_of_the_adapter_counts(release, truth, tmp_path):
    """Left out, the logits would be others: it must not be dropped in silence."""
    done = _convert(release, tmp_path / "out")
    assert (done.adapter.language, done.adapter.vision) == (7 * DEPTH, 3 * 2)
    assert done.adapter.projector
    with torch.no_grad():
        for name, p in release.model.named_parameters():
            if "vision_tower" in name and "lora_B" in name:
                p.mul_(-1)
        try:
            without = release.alone()[0]
        finally:
            for name, p in release.model.named_parameters():
                if "vision_tower" in name and "lora_B" in name:
                    p.mul_(-1)
    assert (without - truth[0]).abs().mean() > 1e-2


# --- what is written ------------------------------------------------------------------------------


def test_settings_of_a_converted_checkpoint(release, converted):
    config = CheckpointConfig.from_json(converted)
    config.verify(converted)
    assert config.hooked_layers == (4, 5, 7)
    assert config.abstain_rule == "two_of_three"
    assert config.prompt == "<image> evaluate en {instruction}"
    assert config.answer_words.success == ("success", "1", "pass")
    assert config.answer_words.fail == ("fail", "0", "failure")
    assert (config.vote_weights.fs, config.vote_weights.vlm) == ((1, 1, 1), 2)
    assert config.fs_head.widths == (16, 8) and config.fs_head.dropout == 0.5
    assert (config.montage.num_keyframes, config.montage.num_pov) == (4, 2)
    assert (config.picture.height, config.picture.width) == (28, 28)
    assert not config.masks_padding
    origin = config.metrics["converted_from"]
    assert origin["fs_epoch"] == 10
    assert origin["adapter_made_on"] == "google/paligemma2-3b-mix-224"
    names = {p.relative_to(converted).as_posix() for p in converted.rglob("*") if p.is_file()}
    assert {n for n in names if not n.startswith("base/")} == {
        "checkpoint.json",
        "fs_blocks.safetensors",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }
    texts = [p.read_text() for p in converted.rglob("*.json")]
    assert not any(str(release.folder) in t or str(Path.cwd()) in t for t in texts)


def test_the_same_files_give_the_same_checkpoint(release, converted, tmp_path):
    """Whatever the layout of the adapter was."""
    again = _convert(release, tmp_path / converted.name, "since 4.52").config
    before = CheckpointConfig.from_json(converted)
    assert again.files == before.files
    assert again.model_id == before.model_id


def test_the_command(release, tmp_path, capsys):
    argv = [
        *("convert", "--fs", str(release.folder / "components_epoch_10.pt")),
        *("--adapter", str(release.folder / "before 4.52" / "Tiny-2p")),
        *("--base", str(release.folder / "base"), "--out", str(tmp_path / "mine")),
        *("--fs-widths", "16x8", "--cell", "14x14"),
    ]
    assert cli.main(argv) == 0
    text = capsys.readouterr().out
    assert "56 modules of the language model, 6 in the vision tower" in text
    assert "layers (4, 5, 7)" in text and "paligemma2-3b-mix-224" in text
    config = CheckpointConfig.from_json(tmp_path / "mine")
    assert config.montage.num_pov == 2  # Tiny-2p says so
    assert cli.main(["check", str(tmp_path / "mine")]) == 0
    text = capsys.readouterr().out
    assert config.model_id in text and "loads      yes" in text
    assert cli.main([*argv, "--layers", "1,2"]) == 2
    assert "--layers names 2" in capsys.readouterr().err


def test_an_old_checkpoint_is_replaced_and_other_folders_are_not(release, tmp_path):
    _convert(release, tmp_path / "out")
    _convert(release, tmp_path / "out", layers=(1, 2, 3))
    assert CheckpointConfig.from_json(tmp_path / "out").hooked_layers == (1, 2, 3)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("words")
    with pytest.raises(ConfigError, match="no checkpoint"):
        _convert(release, precious)
    assert [p.name for p in precious.iterdir()] == ["thesis.tex"]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_only_weights_and_settings_of_the_base_are_copied(release, tmp_path):
    shutil.copytree(release.folder / "base", tmp_path / "base")
    for name in ("pytorch_model.bin", "modeling.py", "training_args.bin"):
        (tmp_path / "base" / name).write_bytes(b"\x80\x04evil")
    convert(
        release.folder / "components_epoch_10.pt",
        release.folder / "today" / "Tiny-2p",
        str(tmp_path / "base"),
        tmp_path / "out",
        **SMALL,
    )
    suffixes = {p.suffix for p in (tmp_path / "out" / "base").iterdir()}
    assert suffixes <= {".json", ".safetensors", ".model", ".jinja"}
    load_checkpoint(tmp_path / "out")


def test_the_oracle_has_the_size_of_the_authors_heads():
    with torch.device("meta"):
        parts = (oracle.Pooling(2304), oracle.classifier(2304, 1024, 256))
    assert sum(p.numel() for part in parts for p in part.parameters()) == 35_555_331


@pytest.mark.parametrize(
    ("num_layers", "layers"), [(26, (13, 17, 25)), (42, (21, 28, 41)), (8, (4, 5, 7))]
)
def test_the_authors_layers(num_layers, layers):
    assert release_layers(num_layers) == layers == tuple(oracle.release_rule(num_layers))


@pytest.mark.parametrize(
    ("paths", "number"),
    [
        (("FS/FailSense-Calvin-1p-3b/components_epoch_10.pt", "adapters/x"), 1),
        (("a.pt", "hub/FailSense-Droid-2p-3b"), 2),
        (("2p/a.pt", "x/y"), 2),
    ],
)
def test_views_by_name(paths, number):
    assert pov_in_names(*map(Path, paths)) == number


@pytest.mark.parametrize("paths", [("a/b.pt", "x/y"), ("1p/b.pt", "2p/x"), ("12px/b.pt", "x/y")])
def test_views_not_by_name(paths):
    with pytest.raises(ConfigError, match="--num-pov"):
        pov_in_names(*map(Path, paths))
