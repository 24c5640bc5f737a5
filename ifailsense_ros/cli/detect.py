"""`ifailsense detect BAG...`: verdicts on recorded episodes, without ROS."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifailsense_ros.core.arbitration import describe_votes
from ifailsense_ros.core.errors import BagError, ConfigError
from ifailsense_ros.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from ifailsense_ros.evaluate.offline import OfflineVerdict

DETECTOR_HELP = (
    "packaged checkpoint, folder, hub:<org>/<name>@<revision>, module:callable, or baseline:... "
    "(docs/baselines.md)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the sub-command."""
    parser.add_argument("bags", nargs="+", metavar="BAG", help="rosbag2 folder (MCAP or sqlite3)")
    add_detector_arguments(parser)
    parser.add_argument("--montage-dir", type=Path, help="write a picture per verdict here")
    parser.add_argument("--json", action="store_true", help="one JSON object per verdict and line")
    for name, default, what in (
        ("exo", "/exo/image", "exocentric camera"),
        ("gripper", "/gripper/image", "gripper camera"),
        ("instruction", "/instruction", "std_msgs/String"),
        ("episode", "/episode", "ifailsense_ros/EpisodeEvent"),
    ):
        parser.add_argument(
            f"--{name}-topic", default=default, metavar="TOPIC", help=f"{what} (default {default})"
        )


def add_detector_arguments(parser: argparse.ArgumentParser) -> None:
    """One detector, and how sure it must be; see `detector_options`."""
    parser.add_argument(
        "--detector", default="sim-tiny", help=f"{DETECTOR_HELP} (default sim-tiny)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    for name, what in (
        ("--max-missed-failures", "share of failures that may be called SUCCESS"),
        ("--max-false-alarms", "share of successes that may be called FAILURE"),
    ):
        text = f"{what}; a verdict that is not sure enough for that is UNKNOWN"
        parser.add_argument(name, type=float, metavar="RATE", help=text)
    parser.add_argument(
        "--no-guard", action="store_true", help="judge pictures unlike any in training as well"
    )


def detector_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_detector_arguments` read, as keywords of `open_detector`."""
    return {
        "device": args.device,
        "max_missed_failures": args.max_missed_failures,
        "max_false_alarms": args.max_false_alarms,
        "guard": not args.no_guard,
    }


def run(args: argparse.Namespace) -> int:
    """Judge every bag; one that cannot be read costs one line, the others are still judged.

    Returns:
        0, or 2 if a bag could not be read.

    Raises:
        CheckpointError: the detector cannot be loaded.
        ConfigError: the montage folder cannot be made, or a rate cannot be promised.
    """
    from ifailsense_ros.data.rosbag import BagTopics
    from ifailsense_ros.evaluate.baselines.load import open_detector
    from ifailsense_ros.evaluate.offline import judge_bag

    if args.montage_dir is not None:
        try:
            args.montage_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"--montage-dir {args.montage_dir}: cannot be made ({error.strerror})"
            ) from error
    detector = open_detector(args.detector, **detector_options(args))
    topics = BagTopics(
        args.exo_topic, args.gripper_topic, args.instruction_topic, args.episode_topic
    )
    status = 0
    for bag in args.bags:
        episodes = 0
        try:
            for result in judge_bag(bag, detector, topics=topics):
                episodes += 1
                picture = _write_montage(args.montage_dir, bag, episodes, result, detector)
                if args.json:
                    print(json.dumps(_as_json(bag, result.verdict, picture)), flush=True)
                else:
                    print(_as_text(bag, result.verdict, picture), flush=True)
        except BagError as error:
            print(f"ifailsense: {error}", file=sys.stderr)
            status = 2
            continue
        if not episodes:
            print(f"ifailsense: {bag}: no episode was started in it", file=sys.stderr)
    return status


def _as_text(bag: str, verdict: Verdict, picture: Path | None) -> str:
    judgement = verdict.judgement
    if judgement.outcome is Outcome.UNKNOWN:
        what = f"UNKNOWN  {judgement.reason.name}: {judgement.detail}"
    else:
        what = f"{judgement.outcome.name}  p {judgement.p_success:.2f}"
    parts = [bag, f'"{verdict.instruction}"', what, describe_votes(judgement.votes)]
    if picture is not None:
        parts.append(str(picture))
    return "  ".join(p for p in parts if p)


def _as_json(bag: str, verdict: Verdict, picture: Path | None) -> dict[str, Any]:
    """JSON has no NaN: null stands for it."""
    judgement = verdict.judgement

    def number(value: float) -> float | None:
        return None if math.isnan(value) else value

    return {
        "bag": bag,
        "episode_id": str(verdict.episode_id),
        "instruction": verdict.instruction,
        "verdict": judgement.outcome.name,
        "reason": judgement.reason.name,
        "detail": judgement.detail,
        "p_success": number(judgement.p_success),
        "votes": [
            {
                "source": v.source,
                "vote": v.value.name,
                "p_success": number(v.p_success),
                "weight": v.weight,
            }
            for v in judgement.votes
        ],
        "end_ns": verdict.end_ns,
        "keyframe_stamps_ns": list(verdict.keyframe_stamps_ns),
        "model_id": verdict.model_id,
        "montage": None if picture is None else str(picture),
    }


def _write_montage(
    folder: Path | None, bag: str, number: int, result: OfflineVerdict, detector: Any
) -> Path | None:
    if folder is None:
        return None
    import cv2
    import numpy as np

    from ifailsense_ros.core.montage import annotate, compose
    from ifailsense_ros.evaluate.offline import geometry_of

    geometry = geometry_of(detector)
    montage = np.zeros((0, 0, 3), np.uint8)
    if result.episode is not None:
        montage = compose(result.episode, geometry)
    picture = annotate(montage, result.verdict, geometry)
    path = folder / f"{Path(bag).resolve().name}-{number:02d}.png"
    if not cv2.imwrite(str(path), picture[..., ::-1]):
        raise ConfigError(f"--montage-dir {folder}: {path.name} cannot be written there")
    return path
