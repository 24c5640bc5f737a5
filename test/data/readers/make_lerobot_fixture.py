"""Write a small data set with the `lerobot` package itself, for test_lerobot_package.py.

    python make_lerobot_fixture.py FOLDER

Not run by the tests: lerobot pins other versions than ours. See docs/readers.md for the one that
wrote `lerobot-VERSION/` beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

LENGTHS = (8, 5, 7)
TASKS = ("put the cup in the sink", "open the drawer", "put the cup in the sink")
KEYS = ("observation.images.front", "observation.images.wrist")


def numbered(number: int) -> np.ndarray:
    """A picture whose eight bars are the bits of a number, (32, 64, 3)."""
    bits = [(number >> bit & 1) * 255 for bit in range(8)]
    row = np.repeat(np.array(bits, np.uint8), 8)
    return np.broadcast_to(row[None, :, None], (32, 64, 3)).copy()


def write(folder: Path) -> None:
    """Three episodes at 15 Hz, two cameras, `next.success` true at the end of the first two."""
    camera = {"dtype": "video", "shape": (32, 64, 3), "names": ["height", "width", "channels"]}
    features = {
        **dict.fromkeys(KEYS, camera),
        "observation.state": {"dtype": "float32", "shape": (7,), "names": None},
        "action": {"dtype": "float32", "shape": (7,), "names": None},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
    }
    data = LeRobotDataset.create("us/cups", fps=15, features=features, root=folder, use_videos=True)
    number = 0
    for episode, (length, task) in enumerate(zip(LENGTHS, TASKS, strict=True)):
        for step in range(length):
            frame = {
                KEYS[0]: numbered(number),
                KEYS[1]: numbered(number + 100),
                "observation.state": np.full(7, step, np.float32),
                "action": np.full(7, -step, np.float32),
                "next.success": np.array([episode < 2 and step == length - 1]),
            }
            try:
                data.add_frame({**frame, "task": task})
            except (TypeError, ValueError):  # before 0.4 the task was an argument
                data.add_frame(frame, task=task)
            number += 1
        data.save_episode()
    if hasattr(data, "finalize"):
        data.finalize()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
