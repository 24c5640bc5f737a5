"""Other ways to decide from the same votes: every head alone, the VLM alone, means, majorities.

Computed from stored votes. Since the FS blocks change nothing in the VLM, the VLM's vote of a full
checkpoint is what the paper calls "LoRA only".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from ifailsense_ros.core.arbitration import VLM_SOURCE, arbitrate
from ifailsense_ros.core.verdict import Outcome, Reason, Vote, VoteValue
from ifailsense_ros.evaluate.predictions import Prediction

STORED, VLM_ALONE, FS_MAJORITY, MEAN_P = "stored", "vlm", "fs majority", "mean p"
Rule = Callable[[Prediction], int]


def decide(prediction: Prediction, rule: str) -> int:
    """The outcome (a number of `Outcome`) that a rule makes of a prediction's votes.

    Args:
        prediction: with its votes.
        rule: `STORED` (what the detector said), `VLM_ALONE`, `FS_MAJORITY` (a tie is no success),
            `MEAN_P` (the weighted mean probability of those that voted, above one half), the source
            of a head ("fs:2"), or several sources ("fs:1+fs:3+vlm": the vote of these alone).

    Raises:
        ValueError: no such rule, or nobody voted for it here.
    """
    if rule == STORED:
        return prediction.outcome
    if not prediction.sources:  # the detector had nothing to judge
        return int(Outcome.UNKNOWN)
    votes = _votes(prediction)
    fs = [v for v in votes if v.source != VLM_SOURCE]
    if rule == FS_MAJORITY:
        return _outcome(sum(v.value is VoteValue.SUCCESS for v in fs) * 2 > len(fs))
    if rule == MEAN_P:
        voted = [v for v in votes if not math.isnan(v.p_success)]
        weight = math.fsum(v.weight for v in voted)
        if not weight:
            return int(Outcome.UNKNOWN)
        return _outcome(math.fsum(v.weight * v.p_success for v in voted) / weight > 0.5)
    chosen = rule.split("+")
    if not set(chosen) <= set(prediction.sources):
        raise ValueError(f"{rule!r} is no rule, nor are all of {', '.join(prediction.sources)}")
    kept = [v for v in votes if v.source in chosen]
    if len(kept) > 1:
        return int(arbitrate(kept, "unknown_unless_unanimous").outcome)
    vote = kept[0]
    if vote.value in (VoteValue.ABSTAIN, VoteValue.NOT_RUN):
        return int(Outcome.UNKNOWN)
    return _outcome(vote.value is VoteValue.SUCCESS)


def redecided(predictions: Sequence[Prediction], rule: str) -> list[Prediction]:
    """The predictions as another rule would have them."""
    return [replace(p, outcome=decide(p, rule)) for p in predictions]


def rules_of(predictions: Sequence[Prediction]) -> list[str]:
    """The rules that these predictions have votes for: every voter alone, and combinations."""
    sources = next((p.sources for p in predictions if p.sources), ())
    heads = [s for s in sources if s != VLM_SOURCE]
    rules = [STORED, *([VLM_ALONE] if VLM_SOURCE in sources else []), *heads]
    if heads:
        rules += [FS_MAJORITY, MEAN_P]
    return rules


def fewer_heads(sources: Sequence[str], k: int) -> str:
    """The rule of a vote with K of the heads, evenly spread in depth and with the deepest, and the
    VLM's answer where there is one.

    Raises:
        ValueError: there are not that many heads.
    """
    heads = [s for s in sources if s != VLM_SOURCE]
    if not 1 <= k <= len(heads):
        raise ValueError(f"{k} of {len(heads)} heads")
    kept = sorted(len(heads) - 1 - len(heads) * j // k for j in range(k))
    return "+".join([*(heads[i] for i in kept), *(s for s in sources if s == VLM_SOURCE)])


def _votes(p: Prediction) -> list[Vote]:
    return [
        Vote(source, VoteValue(value), p_vote, weight)
        for source, value, p_vote, weight in zip(
            p.sources, p.votes, p.p_votes, p.weights, strict=True
        )
    ]


def _outcome(success: bool) -> int:
    return int(Outcome.SUCCESS if success else Outcome.FAILURE)


def guarded(predictions: Sequence[Prediction], threshold: float) -> list[Prediction]:
    """As the out-of-distribution guard would have them: UNKNOWN beyond its threshold."""
    return [
        replace(p, outcome=int(Outcome.UNKNOWN), reason=int(Reason.OUT_OF_DISTRIBUTION))
        if p.montage_distance > threshold
        else p
        for p in predictions
    ]
