"""An episode store as training sees it: who did what, which words, and the cached features."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.data.episode_store import EpisodeRow, list_shards, read_episodes
from ifailsense_ros.data.smf import (
    ExpertEpisode,
    Phrasings,
    Sample,
    category_table,
    draw_negative_task,
    fixed_pairs,
)
from ifailsense_ros.train.features import FeatureCache

ABLATIONS = ("none", "image_blind", "instruction_blind", "first_frame_only", "last_frame_only")
"""What a trained control is not shown (DESIGN 9.5)."""

_BLIND_TEXT = "do the task"
_BLIND_PICTURE = 14  # one patch of grey says as much as a whole montage of it


@dataclass(frozen=True)
class Ablation:
    """What is taken away from the input, in training and in evaluation alike."""

    name: str = "none"

    def __post_init__(self) -> None:
        if self.name not in ABLATIONS:
            raise ValueError(f"ablation {self.name!r}: choose one of {', '.join(ABLATIONS)}")

    def geometry(self, full: MontageGeometry) -> MontageGeometry:
        """The montage the ablated model sees."""
        if self.name == "image_blind":
            return MontageGeometry(1, 1, _BLIND_PICTURE, _BLIND_PICTURE)
        if self.name in ("first_frame_only", "last_frame_only"):
            return MontageGeometry(full.num_pov, 1, full.cell_height, full.cell_width)
        return full

    def montage(self, episode: Episode, full: MontageGeometry) -> np.ndarray:
        """The picture the ablated model sees, uint8 RGB."""
        geometry = self.geometry(full)
        if self.name == "image_blind":
            return np.full((geometry.height, geometry.width, 3), 128, np.uint8)
        if geometry.num_keyframes < full.num_keyframes:
            at = 0 if self.name == "first_frame_only" else -1
            keyframes = (episode.keyframes[at],)
            episode = Episode(
                episode.episode_id,
                episode.instruction,
                keyframes,
                episode.start_ns,
                episode.end_ns,
            )
        return compose(episode, geometry)

    def text(self, instruction: str) -> str:
        """The instruction the ablated model reads."""
        return _BLIND_TEXT if self.name == "instruction_blind" else instruction


def episode_of(row: EpisodeRow, num_pov: int, instruction: str | None = None) -> Episode:
    """The stored episode as every other source gives it; g* unless another instruction is named."""
    views = row.decode_images()[:num_pov]
    keyframes = tuple(
        Keyframe(stamp, tuple(views[:, t])) for t, stamp in enumerate(row.stamps_ns)
    )
    return Episode(
        episode_id=uuid.uuid5(uuid.NAMESPACE_OID, f"{row.split}/{row.index}/{row.attempt}"),
        instruction=row.instruction if instruction is None else instruction,
        keyframes=keyframes,
        start_ns=row.stamps_ns[0],
        end_ns=row.stamps_ns[-1],
    )


def expert_of(row: EpisodeRow, index: int, categories: dict[str, str]) -> ExpertEpisode:
    """What pairing needs to know; `index` is the row's place in the data set as read."""
    wrong = tuple(
        t
        for t in row.feasible
        if t != row.task and categories.get(t) == row.category and row.outcomes[t] == -1
    )
    return ExpertEpisode(
        index=index,
        task=row.task,
        category=row.category,
        instruction=row.instruction,
        negative_task=row.negative_task,
        negative_instruction=row.negative_instruction,
        contrast=row.contrast,
        wrong_tasks=wrong,
    )


def store_hash(folder: Path, split: str | None = None) -> str:
    """sha256 over names and contents of the shards; the `training_data_hash` of a checkpoint."""
    digest = hashlib.sha256()
    for shard in list_shards(folder, split):
        digest.update(shard.name.encode())
        digest.update(hashlib.sha256(shard.read_bytes()).digest())
    return digest.hexdigest()


class EpisodeSet:
    """The experts of a store folder; pictures are read again only where they are needed."""

    def __init__(self, folder: Path, split: str, limit: int | None = None) -> None:
        self.folder, self.split, self.limit = Path(folder), split, limit
        # One pass for the labels; the pictures are let go row by row.
        rows = [replace(r, images=()) for r in self.rows()]
        categories = {t: r.category for r in rows for t in (r.task, r.negative_task)}
        self.experts = [expert_of(r, i, categories) for i, r in enumerate(rows)]
        self.phrasings = Phrasings.of(self.experts)
        self.categories = category_table(self.experts)
        self.hash = store_hash(self.folder, split)

    def rows(self) -> Iterator[EpisodeRow]:
        """The rows with their pictures, in order."""
        for i, row in enumerate(read_episodes(self.folder, self.split)):
            if self.limit is not None and i >= self.limit:
                return
            yield row

    def __len__(self) -> int:
        return len(self.experts)

    def pairs(self) -> list[Sample]:
        """Each episode once with each label."""
        return fixed_pairs(self.experts, self.categories, self.phrasings)

    def features(
        self,
        model: PaliGemmaForConditionalGeneration,
        processor: PaliGemmaProcessor,
        geometry: MontageGeometry,
        ablation: Ablation,
        cache: Path,
    ) -> np.ndarray:
        """Tower features of every episode's montage, float16 (n, n_img, d_vision)."""
        shown = ablation.name if ablation.name != "instruction_blind" else "none"
        key = {
            "data": self.hash,
            "count": len(self),
            "geometry": [getattr(geometry, f) for f in geometry.__dataclass_fields__],
            "shown": shown,
            "tower": tower_hash(model),
        }
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        episodes = (episode_of(r, geometry.num_pov) for r in self.rows())
        montages = (ablation.montage(e, geometry) for e in episodes)
        path = cache / f"{self.split}-{shown}-{name}.npy"
        return FeatureCache(path, key).get(model, processor, montages, len(self))

    def draw(self, rng: np.random.Generator, pictures: int) -> Sequence[tuple[int, str, str]]:
        """Random (index, right instruction, wrong instruction), any phrasing of the set."""
        drawn = []
        for i in rng.integers(len(self.experts), size=pictures):
            expert = self.experts[int(i)]
            wrong = draw_negative_task(expert, self.categories, rng)
            right_text = self.phrasings.draw(expert.task, rng)
            drawn.append((int(i), right_text, self.phrasings.draw(wrong, rng)))
        return drawn


def tower_hash(model: PaliGemmaForConditionalGeneration) -> str:
    """Short hash of the vision tower's weights: cached features belong to one tower."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.model.vision_tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().to(torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
