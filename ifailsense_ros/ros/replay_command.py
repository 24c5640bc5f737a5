"""`ifailsense replay BAG`: recorded episodes through the live node, and the offline path's word.

    ifailsense replay bags/demo/* --rate 2
    ifailsense replay BAG --clock --exo-topic /static_camera/image_raw

The bags are judged offline; then every recorded message goes over DDS, in a domain of its own on
this machine, to a real monitor node, whose verdicts must be the same. Three processes are started:
the monitor, a listener and the replayer; this one never imports rclpy.

Exit status: 0 if all verdicts agree, 1 if not, 2 for a mistake of the user, 3 if a process died or
hung, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import queue
import random
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import Progress, track

from ifailsense_ros.core.checkpoint import MontageSettings
from ifailsense_ros.core.errors import BagError, ConfigError
from ifailsense_ros.core.verdict import Reason
from ifailsense_ros.data.rosbag import (
    COMPRESSED_TYPE,
    EPISODE_EVENT_TYPE,
    STRING_TYPE,
    Bag,
    BagTopics,
    open_bag,
)
from ifailsense_ros.evaluate.baselines.load import open_detector
from ifailsense_ros.evaluate.offline import judge_bag
from ifailsense_ros.ros.agreement import compare, offline_row
from ifailsense_ros.ros.processes import ChildDied, Processes, ros_environment

MONITOR = "/monitor"
_PATIENCE_S = 60.0
_LINGER_S = 1.0
_END_GRACE_S = 1.0


@dataclass(frozen=True)
class LiveSetup:
    """How a live run hears a bag.

    Attributes:
        topics: in the bag that are played.
        remaps: of the monitor: name of an input -> topic in the bag.
        parameters: of the monitor.
    """

    topics: tuple[str, ...]
    remaps: Mapping[str, str]
    parameters: Mapping[str, Any]


def live_setup(bags: Sequence[Path], topics: BagTopics, montage: MontageSettings) -> LiveSetup:
    """How the monitor hears these bags.

    Args:
        bags: that `judge_bag` can read.
        topics: names in them.
        montage: of the detector's checkpoint.

    Raises:
        ConfigError: one node cannot hear all of them.
    """
    setups = []
    for path in bags:
        with open_bag(path) as bag:
            setups.append(_setup_of(bag, topics, montage.num_pov))
    first = setups[0]
    for path, other in zip(bags, setups, strict=True):
        if other != first:
            raise ConfigError(
                f"{path}: its topics, their types or durability differ from those of {bags[0]}: "
                "replay it by itself"
            )
    return first


def _setup_of(bag: Bag, topics: BagTopics, num_pov: int) -> LiveSetup:
    cameras = {
        name: next(t for t in (topic, f"{topic}/compressed") if t in bag.topics)
        for name, topic in (("exo", topics.exo), ("gripper", topics.gripper))[:num_pov]
    }
    compressed = {bag.topics[topic] == COMPRESSED_TYPE for topic in cameras.values()}
    if len(compressed) > 1:
        raise ConfigError(
            f"{bag.path}: one camera is compressed and the other is not: a monitor takes one kind"
        )
    (is_compressed,) = compressed
    ending = "/compressed" if is_compressed else ""
    remaps = {f"{name}/image{ending}": topic for name, topic in cameras.items()}
    remaps["episode"] = topics.episode
    parameters: dict[str, Any] = {
        "image_transport": "compressed" if is_compressed else "raw",
        # message_filters pairs by arrival; the offline path does as our own pairing does.
        "synchronizer": "builtin",
        "publish_montage": False,
        # Equal verdicts are promised for equal inputs: on a busy machine pictures may come later
        # than a node would wait for them, or be lost by sensor data QoS.
        "end_grace": _END_GRACE_S,
    }
    for topic in cameras.values():
        override = f"qos_overrides.{topic}.subscription"
        parameters |= {f"{override}.reliability": "reliable", f"{override}.depth": 200}
    if bag.topics.get(topics.instruction) == STRING_TYPE:
        remaps["instruction"] = topics.instruction
        if bag.is_latched(topics.instruction) is False:
            parameters["instruction_durability"] = "volatile"
    return LiveSetup(tuple(remaps.values()), remaps, parameters)


def episode_ids(path: Path, topic: str) -> set[str]:
    """The ids that a bag gives to its episodes.

    Raises:
        BagError: a message is damaged.
    """
    ids = set()
    with open_bag(path) as bag:
        if bag.topics.get(topic) != EPISODE_EVENT_TYPE:
            raise BagError(f"{path}: topic {topic} holds no episodes: name another topic")
        for raw in bag.messages({topic}):
            value = uuid.UUID(bytes=bytes(bytearray(bag.deserialize(raw).episode_id.uuid)))
            ids |= {str(value)} if value.int else set()
    return ids


def hear_live(
    args: argparse.Namespace, setup: LiveSetup, expected: int, logs: Path
) -> list[dict[str, Any]]:
    """The verdicts of the live node.

    Args:
        args: of the command line.
        setup: see `live_setup`.
        expected: how many to wait for; those of episodes that never end come when the node does.
        logs: folder of the processes' stderr.

    Raises:
        ChildDied: somebody ended too early.
    """
    python = [sys.executable, "-u", "-m"]
    detector = {"detector": args.detector, "device": args.device, **_rates(args, 0.0)}
    detector["out_of_distribution_guard"] = not args.no_guard
    parameters = {**detector, **setup.parameters, "use_sim_time": args.clock}
    ros = [w for name, topic in setup.remaps.items() for w in ("-r", f"{name}:={topic}")]
    ros += [w for k, v in parameters.items() for w in ("-p", f"{k}:={_yaml(v)}")]
    monitor = [*python, "ifailsense_ros.ros.monitor", "--ros-args", *ros]
    replay = [*python, "ifailsense_ros.ros.replay", "--rate", str(args.rate)]
    replay += ["--pause", str(args.pause), "--wait", str(args.wait)]
    replay += [w for topic in setup.topics for w in ("--topic", topic)]
    replay += ["--clock"] if args.clock else []
    playing = args.wait
    for path in args.bags:
        with open_bag(path) as bag:
            playing += bag.duration_s / args.rate + args.pause
    rows: list[dict[str, Any]] = []
    environment = ros_environment(args.domain_id)
    with (
        Processes(logs, environment, Path.cwd()) as processes,
        Progress(console=Console(stderr=True)) as progress,
    ):
        bar = progress.add_task("live", total=expected)
        # Ended in the reverse order: the listener still hears what the monitor settles at its end.
        processes.start("listener", [*python, "ifailsense_ros.ros.listen", "--monitor", MONITOR])
        processes.start("monitor", monitor)
        processes.start("replayer", [*replay, *map(str, args.bags)], may_end=True)
        deadline = time.monotonic() + playing + _PATIENCE_S
        over: float | None = None
        while time.monotonic() < (deadline if over is None else min(over, deadline)):
            processes.check()
            with contextlib.suppress(queue.Empty):
                rows += _verdicts(processes, timeout=0.1)
                progress.update(bar, completed=len(rows))
            if over is None and processes.ended("replayer"):
                deadline = min(deadline, time.monotonic() + _PATIENCE_S)
                # Verdicts that nobody expects shall be heard as well.
                over = time.monotonic() + _LINGER_S if len(rows) >= expected else None
    while not processes.lines.empty():
        rows += _verdicts(processes, timeout=0.0)
    return rows


def _verdicts(processes: Processes, timeout: float) -> list[dict[str, Any]]:
    line = processes.lines.get(timeout=timeout) if timeout else processes.lines.get_nowait()
    item = json.loads(line.text) if line.child == "listener" else {}
    return [item] if item.get("kind") == "verdict" else []


def _yaml(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _rates(args: argparse.Namespace, off: float | None) -> dict[str, float | None]:
    names = ("max_missed_failures", "max_false_alarms")
    return {name: off if getattr(args, name) is None else getattr(args, name) for name in names}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status, see above.

    Raises:
        IFailSenseError: a mistake in what the user gave.
    """
    args = _parser().parse_args(argv)
    if not args.rate > 0:
        raise ConfigError(f"--rate {args.rate}: must be greater than 0")
    if args.domain_id is None:
        args.domain_id = random.SystemRandom().randint(1, 100)
    _need_ros()
    topics = BagTopics(
        args.exo_topic, args.gripper_topic, args.instruction_topic, args.episode_topic
    )
    previous = {s: signal.signal(s, _interrupt) for s in (signal.SIGTERM, signal.SIGHUP)}
    logs = Path(tempfile.mkdtemp(prefix="ifailsense-replay-"))
    needed = False
    try:
        return _run(args, topics, logs)
    except ChildDied as error:
        needed = True
        print(f"ifailsense replay: {error}", file=sys.stderr)
        return 3
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if not needed:
            shutil.rmtree(logs, ignore_errors=True)


def _run(args: argparse.Namespace, topics: BagTopics, logs: Path) -> int:
    detector = open_detector(
        args.detector, args.device, guard=not args.no_guard, **_rates(args, None)
    )
    montage = detector.config.montage
    names = {i: path.name for path in args.bags for i in episode_ids(path, topics.episode)}
    offline = [
        offline_row(result.verdict)
        for path in track(args.bags, "offline", console=Console(stderr=True))
        for result in judge_bag(path, detector, topics=topics)
    ]
    if not offline:
        raise BagError(f"{args.bags[0]}: no episode was started in it")
    setup = live_setup(args.bags, topics, montage)
    # The live node loads its own.
    del detector
    gc.collect()
    unended = Reason.SHUT_DOWN.name
    expected = sum(row["reason_code"] != unended for row in offline)
    live = hear_live(args, setup, expected, logs)
    compared = compare(offline, live, set(names), args.tolerance)
    for key, row, found in compared:
        p = "" if row["p_success"] is None else f"  p {row['p_success']:.2f}"
        said = row["verdict"] if row["reason_code"] == "NONE" else f"UNKNOWN {row['reason_code']}"
        sign = "DIFFERS" if found else "agrees"
        where = f"{names[row['episode_id']]}  {key}" if row["episode_id"] in names else key
        print(f'{sign}  {where}  "{row["instruction"]}"  {said}{p}')
        for line in found:
            print(f"    {line}")
    same = sum(not found for _, _, found in compared)
    clock = ", /clock" if args.clock else ""
    print(
        f"{same} of {len(compared)} episodes: live and offline agree (rate {args.rate:g}{clock}, "
        f"domain {args.domain_id})"
    )
    return 0 if same == len(compared) else 1


def _need_ros() -> None:
    """Say in one line what is missing, before anything is judged.

    Raises:
        ConfigError: no ROS 2 here.
    """
    for module, hint in (
        ("rclpy", "source a ROS 2 workspace, or install its wheels"),
        ("rosgraph_msgs", "install ros-jazzy-rosgraph-msgs"),
        ("ifailsense_ros.msg", "build the package where ROS 2's message generators are"),
    ):
        if find_spec(module) is None:
            raise ConfigError(
                f"replay needs ROS 2, and {module} is not there: {hint} (see README.md); "
                "`ifailsense detect` judges bags without it"
            )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ifailsense replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bags", nargs="+", type=Path, metavar="BAG", help="rosbag2 folder")
    parser.add_argument("--rate", type=float, default=1.0, help="times as fast as recorded")
    parser.add_argument(
        "--clock", action="store_true", help="publish /clock, and run the node on sim time"
    )
    parser.add_argument(
        "--pause", type=float, default=1.5, metavar="SECONDS", help="between two bags"
    )
    parser.add_argument(
        "--wait", type=float, default=300.0, metavar="SECONDS", help="longest wait for the detector"
    )
    parser.add_argument("--domain-id", type=int, help="ROS domain; default: drawn from 1..100")
    parser.add_argument(
        "--tolerance", type=float, default=1e-3, help="of probabilities (default 0.001)"
    )
    parser.add_argument("--detector", default="sim-tiny", help="as for `ifailsense detect`")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--max-missed-failures", type=float, metavar="RATE", help="see detect")
    parser.add_argument("--max-false-alarms", type=float, metavar="RATE", help="see detect")
    parser.add_argument("--no-guard", action="store_true", help="see detect")
    defaults = asdict(BagTopics())
    for name in ("exo", "gripper", "instruction", "episode"):
        parser.add_argument(
            f"--{name}-topic",
            default=defaults[name],
            metavar="TOPIC",
            help=f"in the bag (default {defaults[name]})",
        )
    return parser
