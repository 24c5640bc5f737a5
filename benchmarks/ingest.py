"""What it costs the node to take in two cameras of 640x480 at 30 Hz, and where the pictures go.

    python -m benchmarks.ingest                                 # about 25 minutes, two cores
    python -m benchmarks.ingest --seconds 10 --runs 1           # a look

For raw and for JPEG: the monitor node and a bare rclpy subscriber take turns at receiving the same
stream (interleaved, so that a slow minute of the machine hits both). Reported, of the node:

- received = used + decimated + dropped[reason] (+ buffered, what waits at the moment of reading),
  per camera, from its /diagnostics; published - received, what DDS lost, stands apart;
- growth of its memory (RSS) after the first 10 s, MB a minute: median of the runs;
- CPU time (user + system, of the node's process without the detector's) per received image, beside
  the bare subscriber's: median of the runs.

Publisher, node and bare subscriber are processes. The detector is a double by default, so that the
node's own cost is measured; `--detector sim-tiny` runs the real one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from benchmarks.ingest_peers import CAMERAS, EPISODE_EVERY_S

ROOT = Path(__file__).resolve().parents[1]
PROFILE = ROOT / "config" / "fastdds_shm.xml"
SETTLE_S = 10.0
"""Memory before this is start-up: buffers fill, code is loaded."""
MAX_SLOPE = 1.0
"""MB a minute, median of the runs."""
DRAIN_S = 7.0
"""After the last picture: the node gives up waiting for partners and says so in its diagnostics."""


class Diagnostics(Node):
    """Keeps the last status of each part of the monitor."""

    def __init__(self) -> None:
        super().__init__("ingest_benchmark")
        self.values: dict[str, dict[str, str]] = {}
        self.create_subscription(DiagnosticArray, "/diagnostics", self._take, 10)

    def _take(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.values[status.name] = {v.key: v.value for v in status.values}

    def wait(self, seconds: float) -> None:
        """Go on listening for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=left)

    def of_camera(self, camera: str) -> dict[str, int]:
        """Counts of one camera as the node last said them."""
        values = self.values[f"monitor: camera {camera}"]
        return {key: int(value) for key, value in values.items() if value.isdecimal()}


@contextlib.contextmanager
def process(module: str, *arguments: str, log: Path) -> Iterator[subprocess.Popen[str]]:
    """A child that is ended in every case; its stderr goes to a file."""
    command = [sys.executable, "-m", module, *arguments]
    with log.open("a") as stderr:
        child = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
        child.stdout.close()


def next_line(child: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """The child's next JSON line; anything else ends the benchmark."""
    line = child.stdout.readline()
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        sys.exit(f"error: expected {event!r} from {child.args[2]}, got {line!r}; see the log")
    if values["event"] != event:
        sys.exit(f"error: expected {event!r} from {child.args[2]}, got {values}")
    return values


def cpu_s(handle: psutil.Process) -> float:
    """User and system time of one process, without its children's."""
    times = handle.cpu_times()
    return times.user + times.system


def slope_mb_per_min(samples: list[tuple[float, float]]) -> float | None:
    """Growth after the settling time, from (seconds, MB) samples: the seasonal Sen slope.

    Memory goes up and down with each episode and with each 0.9 MB picture that is in flight, by
    more in a second than the limit is in a minute. So only samples at the same moment of different
    episodes are compared, and the median over all such pairs is taken (Hirsch, Slack and Smith,
    Water Resources Research 18, 1982): a straight line by least squares through one run of 60 s
    is uncertain by 1.7 MB/min. None with fewer than two episodes.
    """
    later = np.array([sample for sample in samples if sample[0] >= SETTLE_S]).reshape(-1, 2)
    i, j = np.triu_indices(len(later), 1)
    apart = later[j, 0] - later[i, 0]
    episodes = np.round(apart / EPISODE_EVERY_S)
    same_moment = (episodes >= 1) & (np.abs(apart - episodes * EPISODE_EVERY_S) < 0.5)
    if not same_moment.any():
        return None
    growth = (later[j, 1] - later[i, 1])[same_moment] / apart[same_moment]
    return float(np.median(growth) * 60)


def run_stream(
    target: psutil.Process, transport: str, seconds: float, listen: Diagnostics, log: Path
) -> dict[str, Any]:
    """Publish to whoever subscribes, and watch `target` meanwhile."""
    arguments = ["publish", "--transport", transport, "--seconds", str(seconds)]
    with process("benchmarks.ingest_peers", *arguments, log=log) as publisher:
        next_line(publisher, "start")
        before, began = cpu_s(target), time.monotonic()
        memory = []
        while time.monotonic() < began + seconds:
            listen.wait(1.0)
            memory.append((time.monotonic() - began, target.memory_info().rss / 2**20))
        done = next_line(publisher, "done")
        listen.wait(DRAIN_S)
        cpu = cpu_s(target) - before
    return {
        "published": done["published"],
        "late": done["late"],
        "episodes": done["episodes"],
        "cpu_s": cpu,
        "rss_mb": memory[-1][1],
        "memory": [(round(t, 2), round(mb, 2)) for t, mb in memory],
        "slope_mb_per_min": slope_mb_per_min(memory),
    }


def run_node(args: argparse.Namespace, transport: str, listen: Diagnostics) -> dict[str, Any]:
    """One run with the monitor node; counts per camera from its diagnostics."""
    listen.values.clear()
    parameters = {"detector": args.detector, "image_transport": transport}
    ros_args = [a for name, v in parameters.items() for a in ("-p", f"{name}:={v}")]
    with process("ifailsense_ros.ros.monitor", "--ros-args", *ros_args, log=args.log) as node:
        deadline = time.monotonic() + 120
        while listen.values.get("monitor: detector", {}).get("detector state") != "ready":
            listen.wait(0.5)
            if node.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"error: the node did not become ready; see {args.log}")
        result = run_stream(psutil.Process(node.pid), transport, args.seconds, listen, args.log)
        result["cameras"] = {camera: listen.of_camera(camera) for camera in CAMERAS}
        episodes = listen.values["monitor: episodes"]
    result["received"] = {c: result["cameras"][c]["received"] for c in CAMERAS}
    result["counters"] = episodes
    return result


def run_bare(args: argparse.Namespace, transport: str, listen: Diagnostics) -> dict[str, Any]:
    """One run with the bare subscriber."""
    arguments = ["count", "--transport", transport]
    with process("benchmarks.ingest_peers", *arguments, log=args.log) as bare:
        result = run_stream(psutil.Process(bare.pid), transport, args.seconds, listen, args.log)
        bare.send_signal(signal.SIGINT)
        result["received"] = next_line(bare, "counted")["received"]
        bare.wait(20)
    return result


def ms_per_image(run: dict[str, Any]) -> float:
    """CPU time per received image, milliseconds."""
    received = sum(run["received"].values())
    return 1000 * run["cpu_s"] / received if received else float("nan")


def slopes_of(runs: list[dict[str, Any]]) -> list[float]:
    """Growth of memory, MB/min, of the runs that were long enough to tell."""
    return [r["slope_mb_per_min"] for r in runs if r["slope_mb_per_min"] is not None]


def unaccounted(counts: dict[str, int]) -> int:
    """Received pictures of one camera of which the node does not say what became of them."""
    return counts["received"] - sum(
        counts[key] for key in ("used", "decimated", "dropped", "buffered")
    )


def report(transport: str, runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Markdown lines; the accounting is that of the last run with the node."""
    lines = [f"### {'JPEG' if transport == 'compressed' else 'Raw rgb8'}", ""]
    last = runs["node"][-1]
    reasons = sorted({k for c in last["cameras"].values() for k in c if k.startswith("dropped/")})
    columns = ["received", "used", "decimated", *reasons, "buffered"]
    lines += ["| camera | published | lost by DDS | " + " | ".join(columns) + " | unaccounted |"]
    lines += ["|" + "---|" * (len(columns) + 4)]
    for camera, counts in last["cameras"].items():
        published = last["published"][camera]
        cells = [published, published - counts["received"]]
        cells += [counts.get(column, 0) for column in columns]
        lines += [f"| {camera} | " + " | ".join(map(str, [*cells, unaccounted(counts)])) + " |"]
    slopes = slopes_of(runs["node"])
    slope = "too short to tell"
    if slopes:
        slope = f"median {statistics.median(slopes):.2f} MB/min "
        slope += f"({min(slopes):.2f}..{max(slopes):.2f})"
    node, bare = ([ms_per_image(r) for r in runs[who]] for who in ("node", "bare"))
    lost = {
        who: sum(sum(r["published"].values()) - sum(r["received"].values()) for r in runs[who])
        for who in runs
    }
    lines += [
        "",
        f"Memory: {last['rss_mb']:.0f} MB, slope after {SETTLE_S:.0f} s: {slope}.",
        f"CPU per received image, median of {len(node)}: node {statistics.median(node):.2f} ms "
        f"({min(node):.2f}..{max(node):.2f}), bare subscriber {statistics.median(bare):.2f} ms "
        f"({min(bare):.2f}..{max(bare):.2f}): "
        f"{statistics.median(node) / statistics.median(bare):.2f} times.",
        f"Lost by DDS in all runs: {lost['node']} before the node, {lost['bare']} before the bare "
        f"subscriber, of {sum(sum(r['published'].values()) for r in runs['node'])} each.",
        "",
    ]
    return lines


def check(all_runs: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    """What the issue of this benchmark promises, and does not hold."""
    broken = []
    for transport, runs in all_runs.items():
        for run in runs["node"]:
            for camera, counts in run["cameras"].items():
                if counts["received"] > run["published"][camera]:
                    broken.append(f"{transport}, {camera}: somebody else publishes in this domain")
                if unaccounted(counts):
                    broken.append(f"{transport}, {camera}: {unaccounted(counts)} unaccounted for")
        slopes = slopes_of(runs["node"])
        if slopes and statistics.median(slopes) >= MAX_SLOPE:
            broken.append(f"{transport}: memory grows {statistics.median(slopes):.2f} MB/min")
    return broken


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run")
    parser.add_argument("--runs", type=int, default=5, help="with the node, and as many without")
    parser.add_argument("--transport", choices=("raw", "compressed"), action="append")
    parser.add_argument("--detector", default="benchmarks.ingest_double:load", help="or sim-tiny")
    parser.add_argument("--profile", default=str(PROFILE), help="Fast DDS profile; none: default")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "ingest")
    return parser.parse_args()


def main() -> int:
    """Measure, print Markdown, keep the raw figures; 1 when a promise does not hold."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    args.log = args.out / "log.txt"
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_DOMAIN_ID"] = str(random.randint(1, 100))
    if args.profile != "none":
        if not Path(args.profile).is_file():
            sys.exit(f"error: no Fast DDS profile at {args.profile}; --profile none: the default")
        for variable in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
            os.environ[variable] = args.profile
    rclpy.init()
    listen = Diagnostics()
    all_runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for transport in args.transport or ("raw", "compressed"):
        runs = all_runs[transport] = {"node": [], "bare": []}
        for number in range(args.runs):
            print(f"{transport}: run {number + 1} of {args.runs}", file=sys.stderr)
            runs["node"].append(run_node(args, transport, listen))
            runs["bare"].append(run_bare(args, transport, listen))
    (args.out / "runs.json").write_text(json.dumps(all_runs, indent=1))
    listen.destroy_node()
    rclpy.shutdown()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores\n")
    for transport, runs in all_runs.items():
        print("\n".join(report(transport, runs)))
    for line in (broken := check(all_runs)):
        print(f"does not hold: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
