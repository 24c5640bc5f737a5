"""What a planner does after each attempt: the decisions alone, free of robots, ROS and clocks.

The experiment and the ROS planner both ask this code, so what is measured is what runs.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ifailsense_ros.core.verdict import Outcome


class Next(enum.Enum):
    """What comes after an attempt."""

    DONE = "done"
    RETRY = "retry"
    """The same again: the robot itself said that it could not."""
    REGROUND = "re-ground"
    """Ask the policy anew, with another seed: it may have meant something else."""
    HELP = "ask for help"


@dataclass(frozen=True)
class Rules:
    """How a planner recovers.

    Attributes:
        max_tries: attempts at one instruction; then it asks for help.
        give_up_below: an attempt is given up when early warnings stay below this p_success; 0.0:
            never.
        give_up_after: so many early warnings in a row.
    """

    max_tries: int = 3
    give_up_below: float = 0.0
    give_up_after: int = 2


class Recovery:
    """The attempts at one instruction.

    Attributes:
        tries: attempts so far, the one under way included.
        seed: what the policy is to be asked with; another seed is another sample.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._low = 0
        self.tries = 1
        self.seed = 0

    def warned(self, p_success: float) -> bool:
        """Hear an early warning of the attempt under way; whether to give it up.

        Args:
            p_success: NaN (UNKNOWN) says nothing and ends a row of warnings.
        """
        self._low = self._low + 1 if p_success < self._rules.give_up_below else 0
        return self._low >= self._rules.give_up_after

    def after(self, done: bool, outcome: Outcome | None, *, given_up: bool = False) -> Next:
        """Decide what comes after an attempt.

        Args:
            done: the robot's own word: it carried its motion out to the end.
            outcome: the verdict on the attempt; None where nobody judged it.
            given_up: we stopped it after early warnings.

        Returns:
            `RETRY` and `REGROUND` begin the next attempt: `tries` and `seed` are its own.
        """
        if given_up:
            choice = Next.REGROUND
        elif not done:
            choice = Next.RETRY
        elif outcome is None or outcome is Outcome.SUCCESS:
            return Next.DONE
        elif outcome is Outcome.UNKNOWN:
            return Next.HELP
        else:
            choice = Next.REGROUND
        if self.tries >= self._rules.max_tries:
            return Next.HELP
        self.tries += 1
        self.seed += choice is Next.REGROUND
        self._low = 0
        return choice
