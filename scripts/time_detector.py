"""Time a detector on random episodes: `python scripts/time_detector.py sim-tiny --threads 1`.

Prints loading time, wall and CPU seconds of one verdict (median), CPU seconds a verdict in batches,
and the process's peak memory. Pictures are noise of camera size (224 x 224), so that shrinking them
to the cells counts; their content does not change the time.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
import uuid
from pathlib import Path

# a script's own folder is on the path, the repository it times is not
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported

import numpy as np

from ifailsense_ros.core.episode import Episode, Keyframe


def random_episode(rng: np.random.Generator, num_keyframes: int, num_pov: int) -> Episode:
    """An episode of noise at camera size."""
    keyframes = tuple(
        Keyframe(i * 10**9, tuple(rng.integers(0, 256, (num_pov, 224, 224, 3), dtype=np.uint8)))
        for i in range(num_keyframes)
    )
    return Episode(uuid.uuid4(), "lift the red block", keyframes, 0, num_keyframes * 10**9)


def main(argv: list[str] | None = None) -> int:
    """Load, judge, print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", default="sim-tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=24)
    args = parser.parse_args(argv)

    from ifailsense_ros.model.detector import load_detector

    start = time.perf_counter()
    detector = load_detector(args.checkpoint, args.device, args.dtype, num_threads=args.threads)
    loading = time.perf_counter() - start
    montage = detector.config.montage
    rng = np.random.default_rng(0)
    episodes = [
        random_episode(rng, montage.num_keyframes, montage.num_pov) for _ in range(args.episodes)
    ]
    detector.judge(episodes[0])  # the first pass allocates
    wall, cpu = [], []
    for episode in episodes:
        before = time.perf_counter(), time.process_time()
        detector.judge(episode)
        wall.append(time.perf_counter() - before[0])
        cpu.append(time.process_time() - before[1])
    before = time.process_time()
    detector.judge_batch(episodes)
    batched = (time.process_time() - before) / len(episodes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{detector.model_id}, {args.threads} thread(s): loading {loading:.2f} s; one verdict "
        f"{statistics.median(wall):.3f} s wall, {statistics.median(cpu):.3f} CPU-s; in batches "
        f"{batched:.3f} CPU-s; peak {peak:.0f} MB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
