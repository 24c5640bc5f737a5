"""Calibration: probabilities that mean something, and verdicts that keep a promised error rate.

**Temperatures.** The logit of every voter is divided by a temperature > 0, and so are the log-odds
of the weighted mean of their probabilities. No vote changes by that, only how sure it is.

**Promises.** The user says how many failures may be missed, and how many successes may be called
failures. By split-conformal calibration, each class by itself, a verdict is given only where the
one that it rules out is excluded at that rate; otherwise it is UNKNOWN, LOW_CONFIDENCE. With n
calibration episodes of a class whose verdicts can be exchanged with the new one's, the rate holds
for any n, and none below 1 / (n + 1) can be promised.

Numbers come from `train/calibrate.py`; here they are only applied.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason


@dataclass(frozen=True)
class Temperatures:
    """What logits are divided by: of each FS block, shallow to deep; of the VLM; of the vote."""

    fs: tuple[float, ...]
    vlm: float
    vote: float


@dataclass(frozen=True)
class GuardSettings:
    """The out-of-distribution guard (core/guard.py).

    Attributes:
        threshold: a montage that is farther than this from the training ones is like none of them.
        rate: the share of montages like the calibration ones that may be farther.
        montages: training montages that the distances are measured from.
    """

    threshold: float
    rate: float
    montages: int


@dataclass(frozen=True)
class Calibration:
    """What a checkpoint's `checkpoint.json` says of its calibration.

    Attributes:
        data_hash: sha256 that stands for the calibration data.
        split: of that data.
        failures: how many failures there were.
        successes: how many successes.
        temperatures: see there.
        file: safetensors file of the scores and of the guard's statistics, relative.
        guard: None where there is none.
    """

    data_hash: str
    split: str
    failures: int
    successes: int
    temperatures: Temperatures
    file: str
    guard: GuardSettings | None


# --- probabilities --------------------------------------------------------------------------------


def sigmoid(logits: np.ndarray | float) -> np.ndarray:
    """1 / (1 + exp(-logits)), without overflow; NaN stays NaN."""
    with np.errstate(invalid="ignore"):
        return np.exp(-np.logaddexp(0.0, -np.asarray(logits, np.float64)))


def vote_log_odds(logits: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Log-odds of the weighted mean of the voters' probabilities of success.

    From logits, because the probabilities of a voter that is sure differ from 0 and 1 by less
    than a float can hold.

    Args:
        logits: (..., K) of the voters, divided by their temperatures; NaN where one has no say.
        weights: K, >= 0.

    Returns:
        float64 (...); NaN where nobody of a weight above 0 has a say.
    """
    logits = np.asarray(logits, np.float64)
    has_say = ~np.isnan(logits) & (np.asarray(weights, np.float64) > 0)
    z = np.where(has_say, logits, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_weights = np.log(np.where(has_say, weights, 0.0))
        success = np.logaddexp.reduce(log_weights - np.logaddexp(0.0, -z), axis=-1)
        failure = np.logaddexp.reduce(log_weights - np.logaddexp(0.0, z), axis=-1)
        return success - failure


# --- promises -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """How wrong the verdicts on the calibration data were; one score an episode of the class.

    Attributes:
        failures: (n,) float64: log-odds of a failure that was called SUCCESS; -inf of any other.
        successes: (n,) float64: minus the log-odds of a success that was called FAILURE; -inf of
            any other.
    """

    failures: np.ndarray
    successes: np.ndarray

    @classmethod
    def of(
        cls, labels: Sequence[bool], outcomes: Sequence[Outcome], log_odds: Sequence[float]
    ) -> Scores:
        """From labels (True: success), arbitration's outcomes, and the vote's log-odds.

        Raises:
            ValueError: the log-odds of a verdict are no number.
        """
        truth, said = np.asarray(labels, bool), np.asarray(outcomes, np.int64)
        sure = np.asarray(log_odds, np.float64)
        if np.isnan(sure[said != Outcome.UNKNOWN]).any():
            raise ValueError("a verdict has log-odds that are no number")
        missed = np.where(said == Outcome.SUCCESS, sure, -np.inf)
        alarms = np.where(said == Outcome.FAILURE, -sure, -np.inf)
        return cls(missed[~truth], alarms[truth])


def p_value(score: float, scores: np.ndarray) -> float:
    """Conformal p-value of a class for a new episode, ties counted against it."""
    return (1 + int(np.count_nonzero(~(scores < score)))) / (len(scores) + 1)


def ranks_within(rate: float, n: int) -> int:
    """How many of n + 1 ranks a rate has room for: floor(rate (n + 1))."""
    # 0.29 * 100 is 28.999999999999996, and 29 is meant.
    return math.floor(rate * (n + 1) + 1e-9)


def threshold(scores: np.ndarray, rate: float) -> float:
    """The score above which a class is excluded at `rate`: exactly where `p_value` <= rate.

    Raises:
        ValueError: a rate below 1 / (n + 1), for n scores.
    """
    allowed = ranks_within(rate, len(scores))
    if allowed < 1:
        raise ValueError(f"rate {rate} is below 1/{len(scores) + 1}")
    if allowed > len(scores):
        return -math.inf
    return float(np.sort(scores)[-allowed])


@dataclass(frozen=True)
class Limits:
    """How sure a verdict must be.

    Attributes:
        max_missed_failures, max_false_alarms: accepted error rates; None: any.
        success_above: a SUCCESS counts only if its log-odds are above this.
        failure_above: a FAILURE counts only if minus its log-odds are above this.
    """

    max_missed_failures: float | None = None
    max_false_alarms: float | None = None
    success_above: float = -math.inf
    failure_above: float = -math.inf

    @classmethod
    def of(
        cls, scores: Scores, max_missed_failures: float | None, max_false_alarms: float | None
    ) -> Limits:
        """Raises ValueError as `threshold`; `check_rates` says it in the user's words."""
        missed, alarms = max_missed_failures, max_false_alarms
        return cls(
            missed,
            alarms,
            -math.inf if missed is None else threshold(scores.failures, missed),
            -math.inf if alarms is None else threshold(scores.successes, alarms),
        )


def calibrated(
    judgement: Judgement, log_odds: float, vote_temperature: float, limits: Limits
) -> Judgement:
    """Arbitration's judgement with the calibrated probability, or UNKNOWN where it promises more
    than can be kept. An UNKNOWN stays as it is.

    Args:
        judgement: from `arbitrate`.
        log_odds: from `vote_log_odds`; NaN is never sure enough.
        vote_temperature: of the vote.
        limits: what was promised.
    """
    if judgement.outcome is Outcome.UNKNOWN:
        return judgement
    success = judgement.outcome is Outcome.SUCCESS
    rate = limits.max_missed_failures if success else limits.max_false_alarms
    wanted = limits.success_above if success else limits.failure_above
    p = float(sigmoid(log_odds / vote_temperature))
    if rate is None or (log_odds if success else -log_odds) > wanted:
        return dataclasses.replace(judgement, p_success=p)
    sign, than = (1.0, "above") if success else (-1.0, "below")
    bound = float(sigmoid(sign * wanted / vote_temperature))
    what = "missed failures" if success else "false alarms"
    detail = (
        f"{judgement.outcome.name} with p_success {p:.4f} is not sure enough: at most {rate:g} "
        f"{what} were asked for, which takes a p_success {than} {bound:.4f}"
    )
    return Judgement.unknown(Reason.LOW_CONFIDENCE, detail, judgement.votes)


def check_rates(
    calibration: Calibration | None,
    name: str,
    max_missed_failures: float | None,
    max_false_alarms: float | None,
) -> None:
    """See that the accepted error rates can be promised.

    Args:
        calibration: of the checkpoint.
        name: of the checkpoint.
        max_missed_failures, max_false_alarms: above 0 and up to 1; None: nothing is asked for.

    Raises:
        ConfigError: they cannot, in one line.
    """
    for setting, rate, class_name in (
        ("max_missed_failures", max_missed_failures, "failures"),
        ("max_false_alarms", max_false_alarms, "successes"),
    ):
        if rate is None:
            continue
        if not 0 < rate <= 1:
            raise ConfigError(f"{setting} is {rate}, must be above 0 and at most 1")
        if calibration is None:
            raise ConfigError(
                f"{setting} {rate:g} cannot be promised: {name} is not calibrated; run "
                "`ifailsense calibrate` on it, or ask for no rate"
            )
        n = getattr(calibration, class_name)
        if ranks_within(rate, n) < 1:
            least = math.ceil(10**5 / (n + 1)) / 10**5
            raise ConfigError(
                f"{setting} {rate:g} cannot be promised: {name} was calibrated on {n} "
                f"{class_name}, so 1/{n + 1} is the least; ask for {least:g} or more, or calibrate "
                "on more episodes"
            )


# --- how good the probabilities are ---------------------------------------------------------------


@dataclass(frozen=True)
class Reliability:
    """A calibration curve over bins of equal width, and figures of the whole.

    Attributes:
        edges: (bins + 1,) of the bins in p_success.
        counts: (bins,) samples in each.
        mean_p: (bins,) mean p_success; NaN where a bin is empty.
        success_share: (bins,) share of successes; NaN where a bin is empty.
        ece: expected calibration error: mean |success_share - mean_p|, weighted by counts.
        brier: mean squared error of p_success.
        log_loss: mean negative log-likelihood, natural logarithm.
    """

    edges: np.ndarray
    counts: np.ndarray
    mean_p: np.ndarray
    success_share: np.ndarray
    ece: float
    brier: float
    log_loss: float


def reliability(p_success: Sequence[float], labels: Sequence[bool], bins: int = 10) -> Reliability:
    """How well probabilities of success agree with what happened.

    Args:
        p_success: (n,) in 0..1, of verdicts that are not UNKNOWN.
        labels: (n,) True where it was a success.
        bins: of equal width.

    Raises:
        ValueError: nothing, numbers outside 0..1 (NaN, too), another number of labels, or bins < 1.
    """
    p, y = np.asarray(p_success, np.float64), np.asarray(labels, bool).astype(np.float64)
    if p.ndim != 1 or p.shape != y.shape or not len(p) or bins < 1:
        raise ValueError(f"{p.shape} probabilities, {y.shape} labels, {bins} bins")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probabilities must be numbers in 0..1; leave UNKNOWN verdicts out")
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.minimum((p * bins).astype(np.int64), bins - 1)
    counts = np.bincount(index, minlength=bins)
    filled = np.where(counts > 0, counts, np.nan)
    mean_p = np.bincount(index, p, bins) / filled
    share = np.bincount(index, y, bins) / filled
    of_truth = np.clip(np.where(y > 0, p, 1 - p), np.finfo(np.float64).tiny, 1.0)
    return Reliability(
        edges,
        counts,
        mean_p,
        share,
        ece=float(np.nansum(counts * np.abs(share - mean_p)) / len(p)),
        brier=float(np.mean((p - y) ** 2)),
        log_loss=float(-np.log(of_truth).mean()),
    )
