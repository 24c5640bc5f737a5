"""Splits by group: what was recorded in one scene or session is never on both sides of a split.

The split of a group depends on the seed and on its name alone: it is the same in whatever order
the data come, and stays the same when more are added.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass

from ifailsense_ros.core.errors import ConfigError

TRAIN = "train"
TEST = "test"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")


@dataclass(frozen=True)
class Shares:
    """Names of splits and what share of the groups each gets, adding up to 1."""

    parts: tuple[tuple[str, float], ...]

    @classmethod
    def parse(cls, text: str) -> Shares:
        """Read ``train=0.8,validation=0.1,test=0.1``.

        Raises:
            ConfigError: not that form, a share outside (0, 1], or a sum other than 1.
        """
        parts = []
        for item in text.split(","):
            name, equals, share = item.strip().partition("=")
            try:
                value = float(share)
            except ValueError:
                value = math.nan
            if not (equals and _NAME.fullmatch(name) and 0 < value <= 1):
                raise ConfigError(
                    f"--split {text!r}: {item.strip()!r} is not NAME=SHARE with a share above 0 "
                    "and at most 1, as in train=0.8,validation=0.1,test=0.1"
                )
            parts.append((name, value))
        names = [name for name, _ in parts]
        total = math.fsum(value for _, value in parts)
        if len(set(names)) < len(names) or abs(total - 1) > 1e-6:
            raise ConfigError(
                f"--split {text!r}: every name once, and shares that add up to 1 (they are "
                f"{total:g})"
            )
        return cls(tuple(parts))

    @classmethod
    def whole(cls, name: str) -> Shares:
        """Everything in one split.

        Raises:
            ConfigError: not a name.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"--as-split {name!r}: letters and digits only, as in test")
        return cls(((name, 1.0),))

    def split_of(self, source: str, group: str, seed: int) -> str:
        """The split that a group belongs to."""
        at = unit_hash(str(seed), "split", source, group)
        bound = 0.0
        for name, share in self.parts:
            bound += share
            if at < bound:
                return name
        return self.parts[-1][0]  # the sum of the shares fell short of 1 by a rounding error


def unit_hash(*words: str) -> float:
    """A number in [0, 1) that depends on the words alone; as good as random."""
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_training(split: str) -> bool:
    """Whether a split is trained on (train, train1k, ...); the others are held out."""
    return split.startswith(TRAIN)
