"""Who says whether an attempt succeeded: nobody, the oracle, a detector, and simple rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ifailsense_ros.core.detection import Detector
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason
from ifailsense_ros.sim.policy import Attempt

NOBODY = "no monitor"
ORACLE = "oracle"
RETRY_ONCE = "always retry once"
GRIPPER = "gripper"
SIMPLE = (NOBODY, ORACLE, RETRY_ONCE, GRIPPER)


@dataclass(frozen=True)
class Seen:
    """An attempt, as its monitor may look at it.

    Attributes:
        attempt: what became of it; only the oracle looks at `success`, only the gripper at `held`.
        tries: its number, from 1.
        episode: its keyframes (T, N, and how many of its samples have been seen; None: all).
    """

    attempt: Attempt
    tries: int
    episode: Callable[[int, int, int | None], Episode]


class Monitor(Protocol):
    """Judges attempts.

    Attributes:
        name: in tables.
        looks: whether it needs pictures.
    """

    @property
    def name(self) -> str: ...

    @property
    def looks(self) -> bool: ...

    def judge(self, seen: Seen) -> Judgement | None:
        """The verdict on an attempt that was done; None: there is none."""


@dataclass(frozen=True)
class Rule:
    """A monitor that needs no pictures."""

    name: str
    says: Callable[[Seen], bool]
    looks: bool = False

    def judge(self, seen: Seen) -> Judgement | None:
        """See `Monitor`."""
        return Judgement(Outcome.SUCCESS if self.says(seen) else Outcome.FAILURE)


@dataclass(frozen=True)
class Nobody:
    """The robot's own word is all there is."""

    name: str = NOBODY
    looks: bool = False

    def judge(self, seen: Seen) -> Judgement | None:
        """See `Monitor`."""
        return None


class Watching:
    """A detector, on the path of the offline evaluation.

    Args:
        detector: judges in this thread.
        name: in tables; default its model's id.
    """

    looks = True

    def __init__(self, detector: Detector, name: str = "") -> None:
        self._detector = detector
        self.name = name or detector.model_id

    def judge(self, seen: Seen) -> Judgement | None:
        """See `Monitor`."""
        return self._judge(seen, None)

    def warn(self, seen: Seen, samples: int) -> float:
        """p_success of an attempt of which `samples` have been seen so far; NaN: cannot say."""
        return self._judge(seen, samples).p_success

    def _judge(self, seen: Seen, samples: int | None) -> Judgement:
        config = self._detector.config
        m, count = config.montage, len(seen.attempt.states[:samples])
        if count < max(m.num_keyframes, config.min_keyframes):
            return Judgement.unknown(Reason.TOO_FEW_KEYFRAMES, f"{count} samples")
        return self._detector.judge(seen.episode(m.num_keyframes, m.num_pov, samples))


def simple_monitor(name: str) -> Monitor:
    """One of `SIMPLE`. The gripper's rule is what a Franka's own grasp action tells: an attempt
    failed if a grasp closed on nothing, or if what it held was gone before it was to be let go.
    """
    if name == NOBODY:
        return Nobody()
    rules: dict[str, Callable[[Seen], bool]] = {
        ORACLE: lambda seen: seen.attempt.success,
        RETRY_ONCE: lambda seen: seen.tries > 1,
        GRIPPER: lambda seen: seen.attempt.held,
    }
    return Rule(name, rules[name])
