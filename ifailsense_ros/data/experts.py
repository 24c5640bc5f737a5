"""Rows of an episode store as the rest of the house wants them: an Episode, an ExpertEpisode."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.data.episode_store import EpisodeRow, list_shards, read_episodes
from ifailsense_ros.data.records import EXPERT
from ifailsense_ros.data.smf import (
    ExpertEpisode,
    Phrasings,
    Sample,
    category_table,
    fixed_pairs,
)

CAME_FALSE = -1
"""The store's word for an outcome that did not come true, beyond dispute."""


def episode_of(row: EpisodeRow, num_pov: int, instruction: str | None = None) -> Episode:
    """The stored episode as every other source gives it; g* unless another instruction is named.

    Args:
        row: with its pictures.
        num_pov: N, 1 (exocentric) or 2.
        instruction: judged instead of g*.
    """
    views = row.decode_images()[:num_pov]
    return Episode(
        episode_id=uuid.uuid5(uuid.NAMESPACE_OID, f"{row.split}/{row.index}/{row.attempt}"),
        instruction=row.instruction if instruction is None else instruction,
        keyframes=tuple(
            Keyframe(stamp, tuple(views[:, t])) for t, stamp in enumerate(row.stamps_ns)
        ),
        start_ns=row.stamps_ns[0],
        end_ns=row.stamps_ns[-1],
    )


def _expert_of(row: EpisodeRow, index: int, categories: dict[str, str]) -> ExpertEpisode:
    wrong = tuple(
        task
        for task in row.feasible
        if task != row.task
        and categories.get(task) == row.category
        and row.outcomes[task] == CAME_FALSE
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


class ExpertSet:
    """The expert episodes of one split of a store, without their pictures; failures are left out.

    Attributes:
        shards: the files, in order, with the sha256 of each in `shard_hashes`.
        experts: one a row, `index` counting through all shards.
        phrasings: of every task that occurs.
        categories: category -> tasks.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.shards = list_shards(folder, split)
        self.shard_hashes = [hashlib.sha256(s.read_bytes()).hexdigest() for s in self.shards]
        rows = list(read_episodes(folder, split, kind=EXPERT, pictures=False))
        categories = {t: r.category for r in rows for t in (r.task, r.negative_task)}
        self.experts = [_expert_of(r, i, categories) for i, r in enumerate(rows)]
        self.phrasings = Phrasings.of(self.experts)
        self.categories = category_table(self.experts)

    def __len__(self) -> int:
        return len(self.experts)

    @property
    def hash(self) -> str:
        """sha256 over the shards, in order; the `training_data_hash` of a checkpoint."""
        return hashlib.sha256("".join(self.shard_hashes).encode()).hexdigest()

    def pairs(self) -> list[Sample]:
        """Each episode once with each label."""
        return fixed_pairs(self.experts, self.categories, self.phrasings)
