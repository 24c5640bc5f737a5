"""Twelve recorded episodes through the real node over real ROS 2 (`make demo`).

Four processes: the monitor node, a replanner, a listener that writes down what the monitor
publishes, and a replayer that plays the bags. This one starts them, shows what comes back, and
compares it with the truth. Exit status: 0 if enough verdicts match, 1 if not (or if the weights
were shuffled), 2 for a mistake of the user, 3 if a process died or hung, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import cv2

from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.demo.episodes import DemoEpisode, load_episodes
from ifailsense_ros.demo.show import (
    Record,
    captioned,
    make_console,
    print_header,
    print_record,
    print_summary,
    shortest,
    write_sheet,
)
from ifailsense_ros.ros.processes import ChildDied, Line, Processes, ros_environment

_ROOT = Path(__file__).resolve().parents[2]
_START_TIMEOUT_S = 120.0
_PATIENCE_S = 60.0
_COMPLETE_S = 5.0
SHUFFLE_SEED = 0


class Demo:
    """One run.

    Args:
        args: of the command line.
        episodes: to be played, in this order.
    """

    def __init__(self, args: argparse.Namespace, episodes: Sequence[DemoEpisode]) -> None:
        self.console = make_console()
        self.records = [Record(e) for e in episodes]
        self._args = args
        self._by_id = {str(r.episode.episode_id): r for r in self.records}
        self._arrived: list[tuple[float, Record]] = []
        self._printed = 0
        self._unpictured: deque[Record] = deque()
        self._montages: deque[dict[str, Any]] = deque()

    def run(self, processes: Processes) -> None:
        """Start everybody, play everything, show what comes back.

        Raises:
            ChildDied: somebody ended too early, or nothing more came.
        """
        args, python = self._args, [sys.executable, "-u"]
        seed = SHUFFLE_SEED if args.shuffle_weights else -1
        settings = {
            "detector": args.detector,
            "shuffle_seed": seed,
            "image_transport": "compressed",
        }
        # Recorded pictures shall all arrive, however busy this machine is. Live cameras keep the
        # node's default, sensor data QoS, where a late picture is better lost than waited for.
        for camera in ("exo", "gripper"):
            override = f"qos_overrides./{camera}/image/compressed.subscription"
            settings |= {f"{override}.reliability": "reliable", f"{override}.depth": 200}
        parameters = [w for k, v in settings.items() for w in ("-p", f"{k}:={v}")]
        monitor = [*python, "-m", "ifailsense_ros.ros.monitor", "--ros-args", *parameters]
        listener = [*python, "-m", "ifailsense_ros.ros.listen"]
        processes.start("monitor", monitor)
        processes.start("replanner", [*python, str(_ROOT / "examples" / "replanner.py")])
        processes.start("listener", [*listener, "--montage-dir", str(args.out / "raw")])
        self.console.print("waiting for the monitor to load its detector ...", style="dim")
        self._until(processes, self._monitor_is_ready, _START_TIMEOUT_S, "the monitor to be ready")
        replayer = [*python, "-m", "ifailsense_ros.ros.replay"]
        replayer += ["--rate", str(args.rate), "--pause", str(args.pause)]
        replayer += [str(r.episode.path) for r in self.records]
        processes.start("replayer", replayer, may_end=True)
        print_header(self.console)
        playing = sum(r.episode.duration_s / args.rate + args.pause for r in self.records)
        self._until(processes, self._all_arrived, playing + _PATIENCE_S, "the verdicts")
        self._show(everything=True)

    def finish(self) -> bool:
        """Contact sheet and summary; returns whether enough verdicts match."""
        self._show(everything=True)
        with contextlib.suppress(OSError):
            (self._args.out / "raw").rmdir()  # empty, unless a montage belonged to no episode
        sheet = write_sheet(self.records, self._args.out / "contact_sheet.png")
        if sheet:
            self.console.print(f"contact sheet: {shortest(sheet)}", soft_wrap=True)
        return print_summary(self.console, self.records, shuffled=self._args.shuffle_weights)

    def _until(self, processes: Processes, done: Any, timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            processes.check()
            try:
                line = processes.lines.get(timeout=0.1)
            except queue.Empty:
                line = None
            if done(line):
                return
            self._show()
            if time.monotonic() > deadline:
                raise ChildDied(
                    f"waited {timeout_s:.0f} s for {what}, in vain; see the logs in "
                    f"{shortest(self._args.out / 'logs')}"
                )

    def _monitor_is_ready(self, line: Line | None) -> bool:
        if line is None or line.child != "listener":
            return False
        item = json.loads(line.text)
        return item["kind"] == "diagnostics" and item["values"].get("detector state") == "ready"

    def _all_arrived(self, line: Line | None) -> bool:
        if line is not None and line.child == "listener":
            self._heard(json.loads(line.text))
        elif line is not None and line.child == "replanner" and line.text.startswith("["):
            short, _, action = line.text[1:].partition("] ")
            for episode_id, record in self._by_id.items():
                if episode_id.startswith(short) and record.action is None:
                    record.action = action
        return len(self._arrived) == len(self.records) and all(
            _is_complete(r) or time.monotonic() > at + _COMPLETE_S for at, r in self._arrived
        )

    def _heard(self, item: dict[str, Any]) -> None:
        if item["kind"] == "verdict":
            record = self._by_id.get(item["episode_id"])
            if record is not None and record.verdict is None:
                record.verdict = item
                self._arrived.append((time.monotonic(), record))
                self._unpictured.append(record)
        elif item["kind"] == "montage":
            self._montages.append(item)
        for record, path in match_montages(self._unpictured, self._montages):
            record.picture = self._keep(record.episode, Path(path))

    def _keep(self, episode: DemoEpisode, raw: Path) -> Path | None:
        """The monitor's own montage, under the episode's name and with the truth below."""
        picture = cv2.imread(str(raw))
        path = self._args.out / f"{episode.name}.png"
        if picture is None:
            return None
        text = f"truth  {episode.truth.name} ({episode.kind.replace('_', ' ')})   {episode.name}"
        if not cv2.imwrite(str(path), captioned(picture, text)):
            return None
        raw.unlink()
        return path

    def _show(self, *, everything: bool = False) -> None:
        """Print the rows that are complete (or have been waited for long enough), in order."""
        for at, record in self._arrived[self._printed :]:
            late = everything or time.monotonic() > at + _COMPLETE_S
            if not (_is_complete(record) or late):
                return
            self._printed += 1
            print_record(self.console, self._printed, record)


def match_montages(
    records: deque[Record], montages: deque[dict[str, Any]]
) -> Iterator[tuple[Record, str]]:
    """Bring verdicts and montages together; both queues lose what was matched.

    A montage has no episode id, and twins have the same stamps. But the monitor publishes a verdict
    and then its montage, in the same order, and each topic keeps its order on the way; only which
    of the two topics is heard first is open.
    """
    while records and montages:
        stamp_ns = montages[0]["stamp_ns"]
        stamps = [r.verdict["stamp_ns"] for r in records if r.verdict is not None]
        if stamp_ns not in stamps:
            return  # its verdict is still on the way
        for _ in range(stamps.index(stamp_ns)):
            records.popleft()  # a verdict whose montage was lost
        yield records.popleft(), montages.popleft()["path"]


def _is_complete(record: Record) -> bool:
    return None not in (record.verdict, record.action, record.picture)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ifailsense_ros.demo", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--bags", type=Path, default=_ROOT / "bags" / "demo", metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("out") / "demo", metavar="FOLDER")
    parser.add_argument("--detector", default="sim-tiny", help="packaged checkpoint or a folder")
    parser.add_argument("--rate", type=float, default=2.0, help="times as fast as recorded")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two bags")
    parser.add_argument(
        "--shuffle-weights",
        action="store_true",
        help="control: permute the trained weights (fixed seed); the verdicts must then be wrong",
    )
    parser.add_argument("--domain-id", type=int, help="ROS domain; default: drawn from 1..100")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; see the module's text for the exit status."""
    args = _parser().parse_args(argv)
    args.out = args.out.resolve()
    previous = {s: signal.signal(s, _interrupt) for s in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return _run(args)
    except IFailSenseError as error:
        print(f"ifailsense demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ifailsense demo: interrupted; all processes are ended", file=sys.stderr)
        return 130
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _run(args: argparse.Namespace) -> int:
    if not args.rate > 0:
        raise ConfigError(f"--rate {args.rate}: must be greater than 0")
    episodes = load_episodes(args.bags)
    logs = args.out / "logs"
    try:
        for folder in (logs, args.out / "raw"):
            folder.mkdir(parents=True, exist_ok=True)
        for old in (*args.out.glob("*.png"), *(args.out / "raw").glob("*.png")):
            old.unlink()
    except OSError as error:
        raise ConfigError(f"--out {args.out}: cannot be written ({error.strerror})") from error
    domain_id = args.domain_id if args.domain_id is not None else random.randint(1, 100)
    demo = Demo(args, episodes)
    demo.console.print(
        f"{len(episodes)} recorded episodes at {args.rate:g} times their speed; ROS domain "
        f"{domain_id}, this machine only; logs in {shortest(logs)}"
    )
    if args.shuffle_weights:
        demo.console.print(
            f"CONTROL: the detector's trained weights are shuffled (seed {SHUFFLE_SEED}). Its "
            "verdicts must not match the truth, and this run ends with an error.",
            style="bold yellow",
        )
    died: ChildDied | None = None
    with Processes(logs, ros_environment(domain_id), Path.cwd()) as processes:
        try:
            demo.run(processes)
        except ChildDied as error:
            died = error
    if died is not None:
        print(f"ifailsense demo: {died}", file=sys.stderr)
        return 3
    enough = demo.finish()
    return 0 if enough and not args.shuffle_weights else 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
