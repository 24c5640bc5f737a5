"""Whether the verdicts of the live node and of the offline path are the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ifailsense_ros.core.verdict import Verdict

_FIELDS = ("instruction", "verdict", "reason_code", "stamp_ns", "keyframe_stamps_ns", "model_id")


def offline_row(verdict: Verdict) -> dict[str, Any]:
    """A verdict in the form in which the listener prints those of the node."""

    def number(value: float) -> float | None:
        return None if math.isnan(value) else value

    judgement = verdict.judgement
    return {
        "episode_id": str(verdict.episode_id),
        "instruction": verdict.instruction,
        "verdict": judgement.outcome.name,
        "reason_code": judgement.reason.name,
        "reason": judgement.detail,
        "p_success": number(judgement.p_success),
        "votes": [
            {
                "source": vote.source,
                "vote": vote.value.name,
                "p_success": number(vote.p_success),
                "weight": vote.weight,
            }
            for vote in judgement.votes
        ],
        "stamp_ns": verdict.end_ns,
        "keyframe_stamps_ns": list(verdict.keyframe_stamps_ns),
        "model_id": verdict.model_id,
    }


def differences(
    offline: Mapping[str, Any], live: Mapping[str, Any], tolerance: float
) -> Iterator[str]:
    """What a live verdict says otherwise than the offline one, a line each.

    Args:
        offline, live: rows.
        tolerance: by which probabilities may differ: they travel as float32, and other numbers of
            threads add up in another order.
    """
    for name in _FIELDS:
        if offline[name] != live[name]:
            yield f"{name}: offline {offline[name]}, live {live[name]}"
    if not _near(offline["p_success"], live["p_success"], tolerance):
        yield f"p_success: offline {offline['p_success']}, live {live['p_success']}"
    for mine, theirs in zip(offline["votes"], live["votes"], strict=False):
        same = all(mine[name] == theirs[name] for name in ("source", "vote"))
        close = all(_near(mine[n], theirs[n], tolerance) for n in ("p_success", "weight"))
        if not (same and close):
            yield f"vote {mine['source']}: offline {mine}, live {theirs}"
    if len(offline["votes"]) != len(live["votes"]):
        yield f"votes: offline {len(offline['votes'])}, live {len(live['votes'])}"


def _near(a: float | None, b: float | None, tolerance: float) -> bool:
    return a == b if a is None or b is None else abs(a - b) <= tolerance


def by_episode(rows: Sequence[Mapping[str, Any]], ids: set[str]) -> dict[str, list[Mapping]]:
    """Verdicts by what names their episode in the bags: its id, or the stamp of its END where the
    START had none and the node drew one.
    """
    found: dict[str, list[Mapping]] = {}
    for row in rows:
        own = row["episode_id"] in ids
        key = f"episode {row['episode_id']}" if own else f"episode with END at {row['stamp_ns']}"
        found.setdefault(key, []).append(row)
    return found


def compare(
    offline: Sequence[Mapping[str, Any]],
    live: Sequence[Mapping[str, Any]],
    ids: set[str],
    tolerance: float,
) -> list[tuple[str, Mapping[str, Any], list[str]]]:
    """Every episode, a row of it, and what is different; empty where both agree.

    Args:
        offline, live: verdicts in the order in which they fell.
        ids: of episodes, as the bags have them.
        tolerance: see `differences`.
    """
    mine, theirs = by_episode(offline, ids), by_episode(live, ids)
    compared = []
    for key in {**mine, **theirs}:
        a, b = mine.get(key, []), theirs.get(key, [])
        found = [d for x, y in zip(a, b, strict=False) for d in differences(x, y, tolerance)]
        if len(a) != len(b):
            found.append(f"verdicts: offline {len(a)}, live {len(b)}")
        compared.append((key, (a or b)[0], found))
    return compared
