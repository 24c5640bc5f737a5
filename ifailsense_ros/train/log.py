"""A stage's metrics while it runs: log.csv in its folder, and accelerate's trackers."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from ifailsense_ros.train.compute import accelerator

LOG_FILE = "log.csv"


def write_text(path: Path, text: str) -> None:
    """Write a file at once: a reader sees the old one or the new one."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


class Log:
    """log.csv in long format, because validation figures come less often than losses.

    Everything goes to accelerate's trackers as well, where there are any.

    Args:
        folder: of the stage.
        start: step that the stage resumes from; what came after it is written again.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._stage, self._path = folder.name, folder / LOG_FILE
        if not accelerator().is_main_process:
            return
        kept = [row for row in read_log(folder) if row[0] <= start]
        lines = "".join(f"{step},{name},{value:.6g}\n" for step, name, value in kept)
        write_text(self._path, f"step,name,value\n{lines}")

    def write(self, step: int, row: dict[str, float]) -> None:
        """Append one row a figure."""
        here = accelerator()
        if here.is_main_process:
            with self._path.open("a", newline="", encoding="utf-8") as f:
                csv.writer(f, lineterminator="\n").writerows(
                    (step, k, f"{v:.6g}") for k, v in row.items()
                )
        here.log({f"{self._stage}/{k}": v for k, v in row.items()}, step=step)


def read_log(folder: Path) -> list[tuple[int, str, float]]:
    """(step, name, value) of a stage's log, in order; a line cut short by a kill is left out."""
    path = folder / LOG_FILE
    if not path.exists():
        return []
    rows = []
    with path.open(newline="", encoding="utf-8") as f:
        for cells in list(csv.reader(f))[1:]:
            try:
                step, name, value = cells
                rows.append((int(step), name, float(value)))
            except ValueError:
                continue
    return rows
