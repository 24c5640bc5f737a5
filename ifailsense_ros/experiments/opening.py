"""Test once (DESIGN 9.7): a test split is opened for checkpoints that were chosen before.

Whoever trains writes the checkpoint's id down (`docs/results/chosen.csv`) and commits it; only then
is a test split judged with it, and only figures of that order go into a report.
"""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from ifailsense_ros.evaluate.predict import TEST

CHOSEN = "chosen.csv"
_COLUMNS = ("date", "checkpoint", "cell", "training_data_hash")


class Chosen:
    """The list of chosen checkpoints.

    Args:
        path: of the list.
        uncommitted: take a line's own date for the time of choice, also where git does not know
            the line.
    """

    def __init__(self, path: Path, *, uncommitted: bool = False) -> None:
        self.path, self.uncommitted = path, uncommitted
        self._known: dict[str, datetime] = {}

    def add(self, checkpoint: str, cell: str, training_data_hash: str) -> None:
        """Write a checkpoint down, once."""
        checkpoint = checkpoint.partition("+")[0]
        if checkpoint in self._dates():
            return
        fresh = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            out = csv.writer(file, lineterminator="\n")
            if fresh:
                out.writerow(_COLUMNS)
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            out.writerow([now, checkpoint, cell, training_data_hash])

    def _dates(self) -> dict[str, str]:
        if not self.path.exists():
            return {}
        with self.path.open(newline="", encoding="utf-8") as file:
            return {row["checkpoint"]: row["date"] for row in csv.DictReader(file)}

    def date_of(self, checkpoint: str) -> datetime | None:
        """When the checkpoint was committed as chosen; None where it was not."""
        checkpoint = checkpoint.partition("+")[0]  # "sim-tiny@1f3a9c02+base" was made with it
        written = self._dates().get(checkpoint)
        if written is None:
            return None
        if self.uncommitted:
            return datetime.fromisoformat(written)
        if checkpoint not in self._known:
            log = _git(self.path, "log", "--reverse", "--format=%cI", f"-S{checkpoint}", "--")
            if not log.strip():
                return None
            # Python 3.10 does not know Z.
            stamp = log.splitlines()[0].replace("Z", "+00:00")
            self._known[checkpoint] = datetime.fromisoformat(stamp)
        return self._known[checkpoint]

    def may_open(self, split: str, checkpoint: str) -> str:
        """ "" where the split may be judged with the checkpoint, else why not."""
        if split != TEST or self.date_of(checkpoint) is not None:
            return ""
        return f"{checkpoint} is to be in {self.path}, and that committed, before test is opened"

    def refuses(self, meta: Mapping[str, str]) -> str:
        """ "" where predictions made so (`predict.meta_of`) may be reported, else why not."""
        if meta["split"] != TEST:
            return ""
        chosen = self.date_of(meta["checkpoint"])
        if chosen is None:
            return f"{meta['checkpoint']} was never committed to {self.path.name}"
        # A commit's date has whole seconds.
        if datetime.fromisoformat(meta["date"]) < chosen:
            return f"{meta['checkpoint']} was chosen after the test split was opened"
        return ""


def _git(path: Path, *command: str) -> str:
    """What git says about a file; "" where there is no git, no checkout or no such file."""
    if not path.exists():
        return ""
    try:
        found = subprocess.run(
            ["git", *command, path.name],
            cwd=path.parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return found.stdout if found.returncode == 0 else ""
