"""Accuracy of a checkpoint on SMF pairs, judged by the detector that the node runs.

    ifailsense evaluate-pairs --detector sim-tiny --data DATA --split test --out results.json

Each episode is judged once with the instruction it carried out and once with a wrong one (DESIGN
9.3). With `--phrasings-of TRAIN` the same pairs are judged a second time in phrasings that occur in
the training split, as the paper does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ifailsense_ros.core.errors import IFailSenseError
from ifailsense_ros.core.verdict import Judgement, Outcome
from ifailsense_ros.data.ablation import ABLATIONS, Ablation
from ifailsense_ros.data.episode_store import read_episodes
from ifailsense_ros.data.experts import ExpertSet, episode_of
from ifailsense_ros.data.records import EXPERT
from ifailsense_ros.data.smf import Phrasings, Sample
from ifailsense_ros.evaluate.metrics import summary
from ifailsense_ros.model.detector import FailSenseDetector, load_detector

FULL_POV = 2


@dataclass(frozen=True)
class Judged:
    """One sample and what the detector said of it."""

    sample: Sample
    judgement: Judgement

    @property
    def right(self) -> bool:
        """UNKNOWN is wrong, whatever the truth."""
        wanted = Outcome.SUCCESS if self.sample.success else Outcome.FAILURE
        return self.judgement.outcome is wanted


def rephrased(samples: Sequence[Sample], phrasings: Phrasings, seed: int = 0) -> list[Sample]:
    """The same pairs in phrasings of another split; both members of a pair draw alike."""
    out = []
    for s in samples:
        rng = np.random.default_rng((seed, s.index))
        out.append(replace(s, instruction=phrasings.draw(s.task, rng)))
    return out


def judge_samples(
    detector: FailSenseDetector,
    folder: Path,
    split: str,
    samples: Sequence[Sample],
    ablation: Ablation,
    *,
    num_pov: int = FULL_POV,
) -> Iterator[Judged]:
    """Judge samples episode by episode, reading the store as a stream."""
    by_episode: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_episode[sample.index].append(sample)
    rows = enumerate(read_episodes(folder, split, kind=EXPERT))
    for index, row in tqdm(rows, total=len(by_episode), desc=f"judge {split}", mininterval=5):
        if index not in by_episode:
            continue
        episode = episode_of(row, num_pov)
        asked = [
            ablation.apply(replace(episode, instruction=s.instruction)) for s in by_episode[index]
        ]
        for sample, judgement in zip(by_episode[index], detector.judge_batch(asked), strict=True):
            yield Judged(sample, judgement)


def report(judged: Sequence[Judged]) -> dict:
    """Summary over all, per category, per contrast, per voter; what `--out` holds."""

    def part(items: Sequence[Judged]) -> dict:
        return summary([j.sample.success for j in items], [j.judgement.outcome for j in items])

    def grouped(key) -> dict:
        groups: dict[str, list[Judged]] = defaultdict(list)
        for j in judged:
            groups[key(j)].append(j)
        return {name: part(items) for name, items in sorted(groups.items())}

    voters: dict[str, list[bool]] = defaultdict(list)
    for j in judged:
        for vote in j.judgement.votes:
            voters[vote.source].append(vote.value == int(j.sample.success))
    return {
        "all": part(judged),
        "category": grouped(lambda j: j.sample.category),
        "contrast": grouped(lambda j: "+".join(j.sample.contrast) or "none"),
        "voter_accuracy": {k: round(float(np.mean(v)), 4) for k, v in sorted(voters.items())},
    }


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="ifailsense evaluate-pairs", description=__doc__)
    parser.add_argument("--detector", default="sim-tiny", help="checkpoint name or folder")
    parser.add_argument("--data", type=Path, required=True, help="episode store")
    parser.add_argument("--split", default="test")
    parser.add_argument("--phrasings-of", type=Path, help="store whose train split lends words")
    parser.add_argument("--ablation", default="none", choices=ABLATIONS)
    parser.add_argument("--out", type=Path, help="JSON file; default: standard output alone")
    args = parser.parse_args(argv)
    try:
        detector = load_detector(args.detector)
        experts = ExpertSet(args.data, args.split)
        ablation = Ablation(args.ablation)
        samples = experts.pairs()
        results = {
            "detector": detector.model_id,
            "data_hash": experts.hash,
            "own_phrasings": report(
                list(judge_samples(detector, args.data, args.split, samples, ablation))
            ),
        }
        if args.phrasings_of is not None:
            known = ExpertSet(args.phrasings_of, "train").phrasings
            samples = rephrased(samples, known)
            results["shared_phrasings"] = report(
                list(judge_samples(detector, args.data, args.split, samples, ablation))
            )
    except IFailSenseError as error:
        print(f"ifailsense evaluate-pairs: {error}", file=sys.stderr)
        return 2
    text = json.dumps(results, indent=1)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
