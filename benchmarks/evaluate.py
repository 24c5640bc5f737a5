"""How fast recorded episodes become pictures to judge: against real time, and against bare rosbags.

    python -m benchmarks.evaluate                                    # 1000 episodes, a bag each
    python -m benchmarks.evaluate --episodes-a-bag 50                # in 20 bags
    python -m benchmarks.evaluate --episodes 60                      # a look
    python -m benchmarks.evaluate --whole --episodes 250 1000        # the command, and its memory

The bags are MCAP, made of the demo's simulated episodes (five seconds, two cameras of JPEG) as
often as is asked for, in a temporary folder. What is measured is everything up to the detector:
opening a bag, going through its messages, episode boundaries, pairing, choice of keyframes,
decoding and shrinking those. Beside it, on the same bags in the same run, bag by bag in turn: a
bare iteration over all messages with `rosbags`, deserializing and decoding (cv2) nothing but the
keyframes, whose places it is told. Both also the other way: ours without the shrinking, which is
neither reading nor decoding, and the bare iteration with it, because whoever makes a montage has to
shrink. CPU time of one thread; the bags are in the page cache.

`--whole` runs `ifailsense evaluate` on such bags, each number of episodes in a process of its own,
and says how much memory the driver and the largest worker had at most.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ifailsense_ros.cli import main as ifailsense
from ifailsense_ros.core.effects import SECOND, TrackerConfig
from ifailsense_ros.core.montage import MontageGeometry, fit_cell
from ifailsense_ros.core.verdict import Judgement, Outcome
from ifailsense_ros.data.bag_sidecar import Sidecar
from ifailsense_ros.data.readers.bag_episodes import find_episodes
from ifailsense_ros.data.replay import BagReplay
from ifailsense_ros.data.ros_messages import message_typestore
from ifailsense_ros.data.rosbag import BagTopics, open_bag, read_events
from ifailsense_ros.evaluate.offline import BagEpisodes
from ifailsense_ros.evaluate.results import iterate_results

DEMO = Path(__file__).parents[1] / "bags" / "demo"
CONFIG = TrackerConfig()
GEOMETRY = MontageGeometry(len(CONFIG.cameras), CONFIG.num_keyframes, 56, 56)


@dataclass(frozen=True)
class MadeBag:
    """A bag, and what must be decoded of it.

    Attributes:
        folder: of the bag.
        recorded_s: from START to END, summed over its episodes.
        keyframes: stamps of the keyframes, episode by episode.
        places: topic and receive time of every picture of a keyframe.
    """

    folder: Path
    recorded_s: float
    keyframes: list[tuple[int, ...]]
    places: set[tuple[str, int]]


@dataclass
class Times:
    """CPU seconds bag by bag."""

    ours: list[float] = field(default_factory=list)
    ours_unshrunk: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    bare_shrunk: list[float] = field(default_factory=list)


def make_bags(folder: Path, episodes: int, each: int) -> list[MadeBag]:
    """Bags of `each` episodes: the demo's in turn. Those of the same episodes are links."""
    demo = sorted(path.parent for path in DEMO.glob("*/metadata.yaml"))
    made: dict[tuple[Path, ...], MadeBag] = {}
    bags = []
    for first in range(0, episodes, each):
        sources = tuple(demo[k % len(demo)] for k in range(first, min(first + each, episodes)))
        bag = folder / f"{first:06d}"
        if sources in made:
            same = made[sources]
            shutil.copytree(same.folder, bag, copy_function=_link)
            bags.append(MadeBag(bag, same.recorded_s, same.keyframes, same.places))
        else:
            join_bags(sources, bag)
            made[sources] = _looked_at(bag)
            bags.append(made[sources])
    return bags


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # this file system has none
        shutil.copy(source, target)


def join_bags(sources: Sequence[Path], bag: Path) -> None:
    """Bags one after the other, a second apart, as one bag; each with an episode of its own."""
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer

    store, now = message_typestore(), 0
    time_type = store.types["builtin_interfaces/msg/Time"]
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics: dict[str, Any] = {}
        for number, source in enumerate(sources):
            with Reader(source) as reader:
                shift = now - reader.start_time if now else 0
                for connection, receive_ns, data in reader.messages():
                    name = connection.topic
                    if name not in topics:
                        profiles = connection.ext.offered_qos_profiles
                        topics[name] = writer.add_connection(
                            name,
                            connection.msgtype,
                            typestore=store,
                            offered_qos_profiles=profiles,
                        )
                    message = store.deserialize_cdr(data, connection.msgtype)
                    if hasattr(message, "header"):
                        stamp = message.header.stamp
                        stamp_ns = stamp.sec * SECOND + stamp.nanosec + shift
                        message.header.stamp = time_type(*divmod(stamp_ns, SECOND))
                    if hasattr(message, "episode_id"):
                        message.episode_id.uuid = np.full(16, 1 + number % 255, np.uint8)
                    again = store.serialize_cdr(message, connection.msgtype)
                    writer.write(topics[name], receive_ns + shift, bytes(again))
                now = reader.end_time + shift + SECOND


def _looked_at(bag: Path) -> MadeBag:
    """What is in a bag, found in another way than the one that is measured."""
    with open_bag(bag) as opened:
        cameras = sorted(t for t in opened.topics if "/image" in t)
    keyframes = ours(bag)
    stamps = {stamp for chosen in keyframes for stamp in chosen}
    recorded_s, places = 0.0, set()
    for episode in find_episodes(bag, Sidecar(), BagTopics(), len(cameras)):
        recorded_s += (episode.end_ns - episode.start_ns) / SECOND
        for pair in episode.pairs:
            if pair.stamps_ns[0] in stamps:
                places.update(zip(cameras, pair.receive_ns, strict=True))
    return MadeBag(bag, recorded_s, keyframes, places)


def ours(bag: Path) -> list[tuple[int, ...]]:
    """Read the episodes of a bag as an evaluation does; returns the stamps of their keyframes."""
    found = []
    for started in BagEpisodes(bag, CONFIG, GEOMETRY):
        if started.episode is None:
            raise SystemExit(f"{bag}: {started.verdict.judgement.detail}")
        found.append(tuple(k.stamp_ns for k in started.episode.keyframes))
    return found


def ours_unshrunk(bag: Path) -> list[tuple[int, ...]]:
    """The same, but the pictures stay as large as they are."""
    replay = BagReplay(CONFIG, lambda episode: Judgement(Outcome.SUCCESS, p_success=1.0))
    published = replay.run(read_events(bag, labels=True))
    return [tuple(k.stamp_ns for k in done.episode.keyframes) for done in published]


def bare(bag: Path, places: set[tuple[str, int]], store: Any, *, shrink: bool = False) -> int:
    """The least that must be done: all messages read, the pictures at `places` decoded (and brought
    to the montage's cell). Returns their number.
    """
    from rosbags.rosbag2 import Reader

    decoded = 0
    with Reader(bag) as reader:
        for connection, receive_ns, data in reader.messages():
            if (connection.topic, receive_ns) in places:
                message = store.deserialize_cdr(data, connection.msgtype)
                picture = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
                picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
                if shrink:
                    fit_cell(picture, GEOMETRY)
                decoded += 1
    return decoded


def measure(bags: Sequence[MadeBag]) -> Times:
    """Time all ways on all bags, in turn; which is first changes from bag to bag."""
    times, store = Times(), message_typestore()
    for number, bag in enumerate(tqdm(bags, unit="bag", desc="read")):
        for turn in range(number, number + 4):
            shrink = turn % 4 < 2
            began = time.process_time()
            if turn % 2:
                keyframes = (ours if shrink else ours_unshrunk)(bag.folder)
                spent = times.ours if shrink else times.ours_unshrunk
                spent.append(time.process_time() - began)
                assert keyframes == bag.keyframes
            else:
                decoded = bare(bag.folder, bag.places, store, shrink=shrink)
                spent = times.bare_shrunk if shrink else times.bare
                spent.append(time.process_time() - began)
                assert decoded == len(bag.places)
    return times


def report(bags: Sequence[MadeBag], times: Times) -> dict[str, float]:
    """The figures."""
    ours_s, bare_s = sum(times.ours), sum(times.bare)
    recorded_s = sum(bag.recorded_s for bag in bags)
    episodes = sum(len(bag.keyframes) for bag in bags)
    ratios, unshrunk, shrunk = (
        statistics.median(a / b for a, b in zip(ours, bare, strict=True))
        for ours, bare in (
            (times.ours, times.bare),
            (times.ours_unshrunk, times.bare),
            (times.ours, times.bare_shrunk),
        )
    )
    return {
        "bags": len(bags),
        "episodes": episodes,
        "pictures_decoded": sum(len(bag.places) for bag in bags),
        "recorded_s": round(recorded_s, 1),
        "cpu_s": round(ours_s, 2),
        "bare_cpu_s": round(bare_s, 2),
        "ms_an_episode": round(1e3 * ours_s / episodes, 2),
        "times_real_time_a_core": round(recorded_s / ours_s, 1),
        "ratio_to_bare": round(ours_s / bare_s, 3),
        "median_ratio_to_bare": round(ratios, 3),
        "median_ratio_none_shrinking": round(unshrunk, 3),
        "median_ratio_both_shrinking": round(shrunk, 3),
    }


def evaluate_all(folder: Path, episodes: int, detector: str, workers: int) -> dict[str, Any]:
    """`ifailsense evaluate` in this process, on so many episodes; its time and memory."""
    bags = folder / "bags"
    bags.mkdir()
    make_bags(bags, episodes, 1)
    words = ["evaluate", str(bags), "--out", str(folder / "results"), "--no-report"]
    words += ["--detector", detector, "--workers", str(workers)]
    began = time.monotonic()
    with contextlib.redirect_stdout(sys.stderr):
        status = ifailsense(words)
    of_driver, of_worker = (
        resource.getrusage(whose).ru_maxrss / 1024
        for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "episodes": episodes,
        "status": status,
        "rows": sum(1 for _ in iterate_results(folder / "results")),
        "wall_s": round(time.monotonic() - began, 1),
        "driver_peak_mb": round(of_driver),
        "worker_peak_mb": round(of_worker),
    }


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.evaluate", description=__doc__)
    parser.add_argument("--episodes", type=int, nargs="+", default=[1000])
    parser.add_argument("--episodes-a-bag", type=int, default=1)
    parser.add_argument("--whole", action="store_true", help="run the command")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--detector", default="baseline:always-success", help="with --whole")
    parser.add_argument("--workers", type=int, default=2, help="with --whole")
    args = parser.parse_args()
    if args.whole and not args.one:
        for count in args.episodes:
            words = [*sys.argv[1:], "--one", "--episodes", str(count)]
            subprocess.run([sys.executable, "-m", "benchmarks.evaluate", *words], check=True)
        return 0
    cv2.setNumThreads(1)
    for count in args.episodes:
        with tempfile.TemporaryDirectory() as folder:
            if args.one:
                found = evaluate_all(Path(folder), count, args.detector, args.workers)
            else:
                bags = make_bags(Path(folder), count, args.episodes_a_bag)
                found = report(bags, measure(bags))
        print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
