"""Many robots, one detector, one machine: where pairs begin to drop, and what bounds it.

    python -m benchmarks.fleet                                   # about 25 minutes
    python -m benchmarks.fleet --robots 2 --seconds 10           # a look

For each number of robots: all their cameras (two of 640x480 at 15 Hz a robot; an episode of 8 s
every 10 s) come from one process. One monitor a robot takes them in and has its episodes judged by
one `ifailsense_detector`; in turn with that, one bare rclpy subscriber a robot takes in the same.
All on this machine, so cameras and receivers share its cores, as they would not on robots.

Reported: pictures lost by DDS (published - received), dropped by the monitors (their diagnostics),
episodes with a verdict that is no UNKNOWN, CPU time per received image of monitors and of bare
subscribers, and how many cores everybody took, other programs too. The detector is a double that
answers at once (`--detector sim-tiny`: the real one).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import rclpy

from benchmarks.ingest import (
    DRAIN_S,
    PROFILE,
    ROOT,
    Diagnostics,
    cpu_s,
    next_line,
    process,
)
from benchmarks.ingest_peers import CAMERAS

RATE_HZ = 15.0
DROPS_FROM = 0.001
"""Share of pictures lost or dropped from which we say that it does not keep up."""


def robot(number: int) -> str:
    """Namespace of a robot."""
    return f"/robot{number + 1}"


def cores(process_ids: Sequence[int]) -> float:
    """CPU seconds so far of these processes and their children."""
    total = 0.0
    for pid in process_ids:
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(pid)
            total += cpu_s(parent) + sum(cpu_s(child) for child in parent.children(recursive=True))
    return total


def machine_s() -> float:
    """CPU seconds that the whole machine has worked."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system


def stream(
    args: argparse.Namespace, robots: int, receivers: list[int], helpers: list[int], listen: Any
) -> dict[str, Any]:
    """Publish for all robots; `receivers` and `helpers` are process ids whose time is counted."""
    arguments = ["publish", "--transport", args.transport, "--seconds", str(args.seconds)]
    arguments += ["--rate", str(RATE_HZ)]
    arguments += [a for n in range(robots) for a in ("--namespace", robot(n))]
    with process("benchmarks.ingest_peers", *arguments, log=args.log) as publisher:
        next_line(publisher, "start")
        groups = {"cameras": [publisher.pid], "receivers": receivers, "detector": helpers}
        before = {name: cores(pids) for name, pids in groups.items()}
        machine, began = machine_s(), time.monotonic()
        listen.wait(args.seconds)
        wall = time.monotonic() - began
        used = {name: (cores(pids) - before[name]) / wall for name, pids in groups.items()}
        used["others"] = (machine_s() - machine) / wall - sum(used.values())
        done = next_line(publisher, "done")
        listen.wait(DRAIN_S)
        cpu = cores(receivers) - before["receivers"]
    return {**done, "cpu_s": cpu, "cores": used}


def run_monitors(args: argparse.Namespace, robots: int, listen: Diagnostics) -> dict[str, Any]:
    """One monitor a robot, and one detector for all."""
    listen.values.clear()
    with contextlib.ExitStack() as stack:

        def start(module: str, *arguments: str) -> int:
            child = process(module, "--ros-args", *arguments, log=args.log)
            return stack.enter_context(child).pid

        server = start("ifailsense_ros.ros.detector_server", "-p", f"detector:={args.detector}")
        monitors = [
            start(
                "ifailsense_ros.ros.monitor",
                *("-r", f"__ns:={robot(n)}", "-p", "detector:=service:/detector"),
                *("-p", f"image_transport:={args.transport}"),
            )
            for n in range(robots)
        ]
        parts = [f"{robot(n)[1:]}/monitor: " for n in range(robots)]
        deadline = time.monotonic() + 180
        while any(
            listen.values.get(part + "detector", {}).get("detector state") != "ready"
            for part in parts
        ):
            listen.wait(0.5)
            if time.monotonic() > deadline:
                sys.exit(f"error: the monitors did not become ready; see {args.log}")
        result = stream(args, robots, monitors, [server], listen)
        values = {key: dict(listen.values[key]) for key in listen.values}
    result["received"] = sum(
        int(values[f"{part}camera {camera}"]["received"]) for part in parts for camera in CAMERAS
    )
    reasons: dict[str, int] = {}
    for part in parts:
        for camera in CAMERAS:
            for key, value in values[f"{part}camera {camera}"].items():
                if key.startswith("dropped/"):
                    reasons[key[8:]] = reasons.get(key[8:], 0) + int(value)
    result["dropped"] = reasons
    verdicts = ("verdict_success", "verdict_failure", "verdict_unknown")
    result["verdicts"] = {
        name: sum(int(values[part + "episodes"].get(name, 0)) for part in parts)
        for name in verdicts
    }
    detector = values.get("detector: detector", {})
    result["batches"] = {
        key.removeprefix("batches of "): int(value)
        for key, value in detector.items()
        if key.startswith("batches of ")
    }
    latencies = [values[part + "detector"].get("latency of last verdict [s]") for part in parts]
    result["latency_s"] = max((float(latency) for latency in latencies if latency), default=None)
    return result


def run_bare(args: argparse.Namespace, robots: int, listen: Diagnostics) -> dict[str, Any]:
    """One bare subscriber a robot."""
    with contextlib.ExitStack() as stack:
        counters = []
        for n in range(robots):
            arguments = ["count", "--transport", args.transport, "--namespace", robot(n)]
            child = process("benchmarks.ingest_peers", *arguments, log=args.log)
            counters.append(stack.enter_context(child))
        result = stream(args, robots, [child.pid for child in counters], [], listen)
        result["received"] = 0
        for child in counters:
            child.send_signal(2)
            result["received"] += sum(next_line(child, "counted")["received"].values())
    return result


def ms_per_image(run: dict[str, Any]) -> float:
    """CPU time of all receivers per received image, milliseconds."""
    return 1000 * run["cpu_s"] / run["received"] if run["received"] else float("nan")


def missing(run: dict[str, Any]) -> tuple[int, int]:
    """Pictures lost by DDS; pictures dropped by the monitors."""
    lost = sum(run["published"].values()) - run["received"]
    return lost, sum(run.get("dropped", {}).values())


def keeps_up(run: dict[str, Any]) -> bool:
    """Whether next to nothing was lost or dropped."""
    return sum(missing(run)) <= DROPS_FROM * sum(run["published"].values())


def report(transport: str, runs: dict[int, dict[str, dict[str, Any]]]) -> list[str]:
    """Markdown lines."""
    lines = [f"### {'JPEG' if transport == 'compressed' else 'Raw rgb8'}", ""]
    lines += [
        "| robots | pictures/s | pairs sent late | lost by DDS, monitors | lost, bare | dropped "
        "| episodes judged | last verdict after, slowest robot "
        "| CPU a picture: monitor | bare | ratio "
        "| cores: cameras | monitors | detector | others |",
        "|" + "---|" * 15,
    ]
    for robots, (node, bare) in ((n, (r["monitors"], r["bare"])) for n, r in runs.items()):
        published, used = sum(node["published"].values()), node["cores"]
        judged = node["verdicts"]["verdict_success"] + node["verdicts"]["verdict_failure"]
        dropped = ", ".join(f"{v} {k}" for k, v in sorted(node["dropped"].items()) if v) or "0"
        latency = "" if node["latency_s"] is None else f"{node['latency_s']:.2f} s"
        cells = [
            robots,
            f"{published / node['took_s']:.0f}",
            node["late"],
            f"{missing(node)[0]} of {published}",
            f"{missing(bare)[0]} of {sum(bare['published'].values())}",
            dropped,
            f"{judged} of {node['episodes']}",
            latency,
            f"{ms_per_image(node):.2f} ms",
            f"{ms_per_image(bare):.2f} ms",
            f"{ms_per_image(node) / ms_per_image(bare):.2f}",
            *(f"{used[who]:.2f}" for who in ("cameras", "receivers", "detector", "others")),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for who in ("monitors", "bare"):
        too_many = [n for n, run in runs.items() if not keeps_up(run[who])]
        text = f"from {min(too_many)} robots on" if too_many else "at none of these numbers"
        lines += ["", f"Pictures are lost or dropped (more than {DROPS_FROM:.1%}), {who}: {text}."]
    return [*lines, ""]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--robots", type=int, nargs="+", default=[1, 2, 4, 8, 12, 16])
    parser.add_argument("--seconds", type=float, default=40.0, help="of each run")
    parser.add_argument("--transport", choices=("raw", "compressed"), action="append")
    parser.add_argument("--detector", default="benchmarks.ingest_double:load", help="or sim-tiny")
    parser.add_argument("--profile", default=str(PROFILE), help="Fast DDS profile; none: default")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "fleet")
    return parser.parse_args()


def main() -> int:
    """Measure, print Markdown, keep the raw figures."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    args.log = args.out / "log.txt"
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_DOMAIN_ID"] = str(random.randint(1, 100))
    if args.profile != "none":
        for variable in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
            os.environ[variable] = args.profile
    rclpy.init()
    listen = Diagnostics()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores\n")
    figures = {}
    for transport in args.transport or ["raw", "compressed"]:
        args.transport = transport
        runs = figures[transport] = {}
        for robots in args.robots:
            print(f"{transport}: {robots} robot(s)", file=sys.stderr)
            runs[robots] = {
                "monitors": run_monitors(args, robots, listen),
                "bare": run_bare(args, robots, listen),
            }
            (args.out / "runs.json").write_text(json.dumps(figures, indent=1))
        print("\n".join(report(transport, runs)), flush=True)
    listen.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
