"""Pairs of tasks that are never seen together: this was done, that was asked for.

Kept out of every stage (DESIGN 9.7), so that a test pair of theirs asks for a combination that no
training ever showed, of tasks that it did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ifailsense_ros.data.smf import ExpertEpisode, Sample, fixed_pairs
from ifailsense_ros.train.dataset import TrainingSet


def is_held_out(performed: str, asked: str, one_in: int) -> bool:
    """Whether a pair of tasks is one of those kept out; the same everywhere."""
    if performed == asked or not performed:
        return False
    digest = hashlib.blake2b(f"{performed}>{asked}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % one_in == 0


class SetWithoutPairs(TrainingSet):
    """A `TrainingSet` that never pairs an episode with an instruction that is held out for it.

    Episodes left without a wrong instruction are not drawn.
    """

    def __init__(
        self, folder: Path, split: str, kinds: Sequence[str], spelling: str, one_in: int
    ) -> None:
        super().__init__(folder, split, kinds, spelling)
        self._one_in = one_in
        done = [self._without(e) for e in self._done]
        self._done = [e for e in done if e.negative_task is not None or e.wrong_tasks]
        changed = {e.index: e for e in done}
        self.experts = [changed.get(e.index, e) for e in self.experts]

    def pairs(self) -> list[Sample]:
        """Each episode that has a wrong instruction left, once with each label."""
        left_out = {e.index for e in self.experts if not e.unfinished}
        left_out -= {e.index for e in self._done}
        usable = [e for e in self.experts if e.index not in left_out]
        return fixed_pairs(usable, self.categories, self.phrasings)

    def _without(self, e: ExpertEpisode) -> ExpertEpisode:
        wrong = e.wrong_tasks
        if wrong is None:  # nothing is known: any task of the category but those
            wrong = tuple(t for t in self.categories[e.category] if t != e.task)
        wrong = tuple(t for t in wrong if not is_held_out(e.task, t, self._one_in))
        if e.negative_task is not None and is_held_out(e.task, e.negative_task, self._one_in):
            return replace(
                e, negative_task=None, negative_instruction=None, contrast=(), wrong_tasks=wrong
            )
        return replace(e, wrong_tasks=wrong)
