"""Arbitration: K FS votes and the VLM's vote become one judgement (paper, Sec. IV-B.2).

Success iff  sum_k w_k y_k + w_vlm y_vlm  >  1/2 (sum_k w_k + w_vlm).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ifailsense_ros.core.verdict import Judgement, Outcome, Reason, Vote, VoteValue

LIKELIER_WORD = "likelier_word"
ABSTAIN_RULES = ("unknown_unless_unanimous", "two_of_three", LIKELIER_WORD)
"""What to do when the VLM's answer is none of its answer words.

`unknown_unless_unanimous`: unanimous FS blocks decide alone (the VLM could not have changed
them), otherwise UNKNOWN. `two_of_three`: the authors' rule, the majority of the FS blocks decides
(two of their three); a tie is not a success. `likelier_word`: the VLM is asked for the likelier of
its answer words and nothing else, so that it never abstains; one that does all the same is treated
as by the first rule.
"""

VLM_SOURCE = "vlm"


def arbitrate(votes: Sequence[Vote], abstain_rule: str) -> Judgement:
    """Weigh the votes.

    Args:
        votes: FS blocks from shallow to deep, then at most one of source "vlm". FS blocks always
            vote SUCCESS or FAIL; the VLM may ABSTAIN, or be NOT_RUN where every FS block agrees
            and neither of its answers could have changed the outcome (lossless short-circuit).
        abstain_rule: one of `ABSTAIN_RULES`.

    Returns:
        SUCCESS or FAILURE with p_success = the weighted mean of the p_success of those that
        voted; or UNKNOWN with VLM_ABSTAINED, or with DETECTOR_ERROR when a voter's p_success is
        not a number in 0..1 (weights full of NaN look like that).

    Raises:
        ValueError: votes that no detector may hand over: none at all, all of weight 0, a negative
            or infinite weight, an FS block that abstains, two VLM votes, an unlawful NOT_RUN, or
            an unknown rule. These are programming errors, not bad luck of an episode.
    """
    votes = tuple(votes)
    _check(votes, abstain_rule)
    fs = [v for v in votes if v.source != VLM_SOURCE]
    vlm = next((v for v in votes if v.source == VLM_SOURCE), None)
    for vote in votes:
        if _has_voted(vote) and not 0.0 <= vote.p_success <= 1.0:
            detail = (
                f"{vote.source} gave p_success {vote.p_success}: check the checkpoint's weights"
            )
            return Judgement.unknown(Reason.DETECTOR_ERROR, detail, votes)

    if vlm is None or _has_voted(vlm):
        success = _formula(votes)
    elif vlm.value is VoteValue.NOT_RUN:
        success = fs[0].value is VoteValue.SUCCESS
    else:
        counted = [v for v in fs if v.weight > 0]
        unanimous = len({v.value for v in counted}) == 1
        if not unanimous and (abstain_rule != "two_of_three" or not counted):
            detail = "the VLM's answer is none of its answer words, and the FS votes disagree"
            if not counted:
                detail = "the VLM's answer is none of its answer words, and no FS block votes"
            return Judgement.unknown(Reason.VLM_ABSTAINED, detail, votes)
        success = _formula(counted)
    outcome = Outcome.SUCCESS if success else Outcome.FAILURE
    return Judgement(outcome, p_success=_mean_p(votes), votes=votes)


def vlm_is_decisive(fs_votes: Sequence[Vote], vlm_weight: float) -> bool:
    """Whether the VLM's answer could still change the outcome, given the FS votes.

    False lets a detector stop before the VLM's last layers and hand over NOT_RUN. It is True
    whenever the FS blocks disagree, and where unanimous blocks could be outvoted.
    """
    if len({v.value for v in fs_votes}) != 1:
        return True
    answers = {
        _formula([*fs_votes, Vote(VLM_SOURCE, value, 0.5, vlm_weight)])
        for value in (VoteValue.SUCCESS, VoteValue.FAIL)
    }
    # An abstention leaves unanimous blocks to decide alone, so it must not differ from them.
    answers.add(fs_votes[0].value is VoteValue.SUCCESS)
    return len(answers) > 1


_SYMBOLS = {
    VoteValue.FAIL: "0",
    VoteValue.SUCCESS: "1",
    VoteValue.ABSTAIN: "?",
    VoteValue.NOT_RUN: "-",
}


def describe_votes(votes: Sequence[Vote]) -> str:
    """The votes in short, for people: `fs 1 1 0 | vlm 1`; `?` abstained, `-` was not run."""
    fs = [_SYMBOLS[v.value] for v in votes if v.source != VLM_SOURCE]
    vlm = [_SYMBOLS[v.value] for v in votes if v.source == VLM_SOURCE]
    return " | ".join(
        [" ".join([name, *part]) for name, part in (("fs", fs), ("vlm", vlm)) if part]
    )


def _formula(votes: Sequence[Vote]) -> bool:
    """The inequality of the module's docstring, for votes that are all SUCCESS or FAIL."""
    # fsum rounds once, so that the sign does not depend on the order of the votes.
    balance = (v.weight if v.value is VoteValue.SUCCESS else -v.weight for v in votes)
    return math.fsum(balance) > 0.0


def _has_voted(vote: Vote) -> bool:
    return vote.value in (VoteValue.SUCCESS, VoteValue.FAIL)


def _mean_p(votes: Sequence[Vote]) -> float:
    voted = [v for v in votes if _has_voted(v)]
    # Scaled by the largest weight, so that tiny weights do not underflow.
    top = max(v.weight for v in voted)
    weights = [v.weight / top for v in voted]
    mean = math.fsum(w * v.p_success for w, v in zip(weights, voted, strict=True))
    return min(1.0, max(0.0, mean / math.fsum(weights)))


def _check(votes: tuple[Vote, ...], abstain_rule: str) -> None:
    if abstain_rule not in ABSTAIN_RULES:
        raise ValueError(f"abstain rule {abstain_rule!r} is none of {', '.join(ABSTAIN_RULES)}")
    if not any(v.weight > 0 for v in votes):
        raise ValueError("arbitration needs at least one vote of weight > 0")
    for vote in votes:
        if not (math.isfinite(vote.weight) and vote.weight >= 0):
            raise ValueError(f"{vote.source} has weight {vote.weight}, which must be finite, >= 0")
    fs = [v for v in votes if v.source != VLM_SOURCE]
    if len(votes) - len(fs) > 1:
        raise ValueError("more than one VLM vote")
    for vote in fs:
        if not _has_voted(vote):
            raise ValueError(f"{vote.source} must vote SUCCESS or FAIL, not {vote.value.name}")
    for vote in votes:
        if vote.value is VoteValue.NOT_RUN and (not fs or vlm_is_decisive(fs, vote.weight)):
            raise ValueError("the VLM may be NOT_RUN only if it cannot change the outcome")
