"""What a verdict costs: the straightforward way, the authors' manner, and ours.

    python -m benchmarks.verdict                          # sim-tiny's size and 3B on the CPU
    python -m benchmarks.verdict --size tiny              # a look: a minute
    python -m benchmarks.verdict --size 3b --device cuda  # p50, p99, throughput, floors

Random weights of the true architecture (benchmarks/verdict_models.py). Each way runs in a process
of its own, one after the other, so that peak memory is its own. On the CPU times are CPU time of
the process, so that other programs on the machine do not count; on CUDA they are wall time from the
keyframes in memory to the judgement.

(a) base and unmerged adapter, `generate`, a second pass with hooks, logits at every position;
(b) one forward pass in the authors' manner: float32, unmerged, logits at every position;
(c) ours: `FailSenseDetector.judge`, where the deepest hook is the last layer, and where it is not:
    stopped early (the FS blocks agree) and resumed (they do not).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported

WAYS = ("a", "b", "c")
SIZES = ("tiny", "3b")
CHOICES = (*SIZES, "test")
DISAGREE, AGREE = (9.0, 9.0, -9.0), (9.0, 9.0, 9.0)
"""Biases of the FS blocks: which way their votes fall."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ways, print tables and ratios; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=CHOICES, help="default: tiny and 3b; test: seconds")
    parser.add_argument("--ways", default="abc", help="which of a, b and c (default all)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16", help="of (a) and (c); (b) is float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="verdicts timed")
    parser.add_argument(
        "--warm-ups", type=int, default=1, help="verdicts before; 0 is fair where one takes seconds"
    )
    parser.add_argument("--new-tokens", type=int, default=5, help="that (a) generates")
    parser.add_argument(
        "--merged", action="store_true", help="(a) and (b) with the adapter merged beforehand"
    )
    parser.add_argument("--acceleration", default=None, help="of (c); default: graphs on CUDA")
    parser.add_argument("--out", type=Path, default=Path("out/verdict"), help="raw figures")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.acceleration is None:
        args.acceleration = "graphs" if args.device.startswith("cuda") else "none"
    if args.child:
        print(json.dumps(_child(args)))
        return 0
    for size in [args.size] if args.size else SIZES:
        args.size = size
        found = {way: _in_own_process(args, way) for way in WAYS if way in args.ways}
        args.out.mkdir(parents=True, exist_ok=True)
        kind = args.device.partition(":")[0]
        file = args.out / f"{size}-{kind}-{args.dtype}{'-merged' if args.merged else ''}.json"
        file.write_text(json.dumps(found, indent=2) + "\n")
        print(f"\n{size}, {args.device}, {args.dtype}, {args.threads} thread(s): {file}\n")
        print(table(found))
    return 0


def table(found: dict[str, Any]) -> str:
    """The figures of a size as a Markdown table, with the ratios to (a)."""
    rows = {
        name: (row, way["peak_mb"]) for way in found.values() for name, row in way["rows"].items()
    }
    straightforward = next((row for name, (row, _) in rows.items() if name.startswith("(a)")), None)
    lines = ["| way | seconds | (a) / it | peak memory |", "|---|---|---|---|"]
    for name, (row, peak) in rows.items():
        ratio = straightforward["p50"] / row["p50"] if straightforward else float("nan")
        spread = f" ({row['least']:.3g}-{row['most']:.3g})" if "least" in row else ""
        spread = f", p99 {row['p99']:.4g}" if "p99" in row else spread
        lines.append(f"| {name} | {row['p50']:.4g}{spread} | {ratio:.2f} | {peak:.0f} MB |")
    for way in found.values():
        for title, figures in way.get("more", {}).items():
            lines += ["", f"{title}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items())]
    return "\n".join(lines)


def _in_own_process(args: argparse.Namespace, way: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.verdict", "--child", way]
    names = ("size", "device", "dtype", "threads", "repeats", "warm_ups", "new_tokens")
    for name in (*names, "acceleration"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    command += ["--merged"] if args.merged else []
    print(f"{args.size} ({way}) ...", file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"way ({way}) ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


# --- in the process of one way --------------------------------------------------------------------


def _child(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    torch.set_num_threads(args.threads)
    if args.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    return _ours(args) if args.child == "c" else _theirs(args)


def _peak_mb(args: argparse.Namespace) -> float:
    """Of this process so far; on CUDA of the device's memory."""
    import torch

    if args.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _theirs(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from benchmarks import verdict_models as models
    from benchmarks.verdict_ways import Unmerged

    dtype = torch.float32 if args.child == "b" else getattr(torch, args.dtype)
    model, processor = models.build(args.size, dtype)
    config = models.settings_of(args.size, models.SIZES[args.size].last)
    width = model.config.get_text_config().hidden_size
    blocks = models.blocks_of(args.size, width, DISAGREE).to(args.device)
    way = Unmerged(
        (model if args.merged else models.with_adapter(model, args.size)).to(args.device),
        processor,
        config,
        blocks,
        new_tokens=args.new_tokens,
    )
    judge = way.authors if args.child == "b" else way.straightforward
    episodes = [models.episode_of(config, seed) for seed in range(args.repeats + 1)]
    steps = []

    def one(i: int) -> None:
        judge(episodes[i])
        steps.append(list(way.steps))

    row = _timed(one, args)
    adapter = ", adapter merged" if args.merged else ""
    if args.child == "b":
        return {"rows": {f"(b) authors' manner, float32{adapter}": row}, "peak_mb": _peak_mb(args)}
    timed = steps[args.warm_ups :]
    dropped = statistics.median(s[-1] - s[1] for s in timed) if args.new_tokens > 2 else 0.0
    more = {"(a) if it generated two tokens": {"seconds": row["p50"] - dropped}}
    name = f"(a) straightforward, {args.dtype}, generate({args.new_tokens}){adapter}"
    more = {} if args.device.startswith("cuda") else more
    return {"rows": {name: row}, "more": more, "peak_mb": _peak_mb(args)}


def _ours(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from benchmarks import verdict_models as models
    from ifailsense_ros.model.detector import FailSenseDetector
    from ifailsense_ros.model.device import keep_freed_memory

    if args.device == "cpu":
        keep_freed_memory()  # as load_detector does
    model, processor = models.build(args.size, getattr(torch, args.dtype))
    width = model.config.get_text_config().hidden_size
    size = models.SIZES[args.size]
    config = models.settings_of(args.size, size.last)
    # An adapter that is merged leaves nothing behind: the same shapes as without one.
    blocks = models.blocks_of(args.size, width, DISAGREE).to(args.device)
    loaded = models.loaded(model, processor, config, blocks)
    loaded.model.to(args.device)
    episodes = [models.episode_of(config, seed) for seed in range(args.repeats + 1)]
    rows, more = {}, {}
    for name, layers, biases in (
        ("(c) ours, deepest hook is the last layer", size.last, DISAGREE),
        (f"(c) ours, deepest hook {size.below[-1]}: stopped early", size.below, AGREE),
        (f"(c) ours, deepest hook {size.below[-1]}: resumed", size.below, DISAGREE),
    ):
        config = models.settings_of(args.size, layers)
        models.set_biases(blocks, biases)
        detector = FailSenseDetector(replace(loaded, config=config), acceleration=args.acceleration)
        said: list[Any] = []
        rows[name] = _timed(lambda i, d=detector, s=said: s.append(d.judge(episodes[i])), args)
        stopped = said[-1].votes[-1].value.name == "NOT_RUN"
        if stopped != ("stopped" in name):
            raise SystemExit(f"{name}: the FS blocks did not vote as they were built to")
        if args.device.startswith("cuda") and layers == size.last:
            more["episodes a second by batch"] = _throughput(detector, models, config)
    peak = _peak_mb(args)  # before the floors are measured
    more["floors"] = _floors(args, loaded, models)
    return {"rows": rows, "more": more, "peak_mb": peak}


def _timed(judge: Callable[[int], Any], args: argparse.Namespace) -> dict[str, float]:
    """Seconds of one verdict each: CPU time, or wall time on CUDA (where all that is asked of the
    device has been done when a judgement is there).
    """
    cuda = args.device.startswith("cuda")
    clock = time.perf_counter if cuda else time.process_time
    rounds = max(200, args.repeats) if cuda else args.repeats
    for _ in range(args.warm_ups):
        judge(0)  # the first pass allocates
    seconds = []
    for i in range(rounds):
        before = clock()
        judge(1 + i % args.repeats)
        seconds.append(clock() - before)
    row = {"p50": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
    if cuda:
        row["p99"] = sorted(seconds)[int(0.99 * len(seconds))]
    return row


def _throughput(detector: Any, models: Any, config: Any) -> dict[str, float]:
    rates = {}
    for batch in (1, 2, 4, 8, 16, 32, 64):
        episodes = [models.episode_of(config, seed) for seed in range(batch)]
        for _ in range(3):
            detector.judge_batch(episodes)
        rounds = max(3, 200 // batch)
        before = time.perf_counter()
        for _ in range(rounds):
            detector.judge_batch(episodes)
        rates[str(batch)] = rounds * batch / (time.perf_counter() - before)
    return rates


def _floors(args: argparse.Namespace, loaded: Any, models: Any) -> dict[str, float]:
    """The least that one verdict could take here: its products at the rate that this machine
    multiplies matrices, its weights at the rate that it copies memory.
    """
    import torch

    from benchmarks.verdict_floors import copy_rate, matmul_rate, work_of

    flops, weights = work_of(loaded, models.settings_of(args.size, models.SIZES[args.size].last))
    dtype = getattr(torch, args.dtype)
    products, copies = matmul_rate(args.device, dtype), copy_rate(args.device)
    return {
        "GFLOP": flops / 1e9,
        "GFLOP/s": products / 1e9,
        "seconds of products": flops / products,
        "weights in GB": weights / 1e9,
        "GB/s": copies / 1e9,
        "seconds of weights": weights / copies,
    }


if __name__ == "__main__":
    sys.exit(main())
