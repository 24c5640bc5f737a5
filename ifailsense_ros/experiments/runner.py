"""Run the experiments: hours; stop and go on at will.

    ifailsense experiments --data data --out runs/experiments
    ifailsense experiments --list
    ifailsense experiments --only 'train/control-*'
    ifailsense experiments --report

Every cell is done once and kept by a hash of all that decides its result; Ctrl-C loses at most the
last minutes of the cell at work. A cell that fails is listed at the end and does not stop the
others. `--only` takes what a chosen cell needs along. Two such commands may run beside each other:
a cell that one of them is at work on is left to it.

A test split is opened only for checkpoints whose id is in `docs/results/chosen.csv` and committed
(DESIGN 9.7); the runner writes the ids there as trainings end, and says which cells wait for it.
Predictions on test are kept in `docs/results/predictions`: commit them, and the cells are done on
every other machine as well.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.evaluate.predict import OPENED, TEST
from ifailsense_ros.experiments.cells import Cell, PredictionCell, TrainingCell, all_cells, needs
from ifailsense_ros.experiments.kept import KEPT
from ifailsense_ros.experiments.opening import CHOSEN, Chosen
from ifailsense_ros.experiments.state import (
    CLOSED,
    DONE,
    FAILED,
    NOT_RUN,
    RECORD,
    STARTED,
    WAITING,
    State,
    Workplace,
    write_json,
)

INTERRUPTED = 130
LOCK_FILE = "at_work.lock"
Worker = Callable[[Cell], int]


class Runner:
    """Does cells one after the other.

    Args:
        place: the cells and their folder.
        chosen: list of checkpoints that may see a test split.
        worker: does one cell and returns an exit status.
        say: prints a line.
    """

    def __init__(
        self,
        place: Workplace,
        chosen: Chosen,
        worker: Worker,
        say: Callable[[str], None] = print,
    ) -> None:
        self._place, self._chosen, self._worker, self._say = place, chosen, worker, say

    def selected(self, pattern: str | None) -> list[Cell]:
        """The cells whose name fits, and what they need, in order.

        Raises:
            ConfigError: none does.
        """
        cells = self._place.cells
        if pattern is None:
            # Trainings and data sets are there for predictions.
            wanted = {n for n, c in cells.items() if isinstance(c, PredictionCell)}
        else:
            wanted = {n for p in pattern.split(",") for n in fnmatch.filter(cells, p.strip())}
        if not wanted:
            raise ConfigError(f"--only {pattern}: no such cell; see --list")
        for name in reversed(list(cells)):  # every cell comes behind those that it needs
            if name in wanted and not self._place.is_kept(cells[name]):
                wanted.update(needs(cells[name]))
        return [cell for name, cell in cells.items() if name in wanted]

    def state(self, cell: Cell) -> State:
        """Where the cell stands, whether it may be opened included."""
        state = self._place.state(cell)
        if isinstance(cell, PredictionCell) and state.name not in (DONE, WAITING):
            trained = self._place.cells[cell.of]
            assert isinstance(trained, TrainingCell)
            config = CheckpointConfig.from_json(self._place.checkpoint(trained))
            if why := self._chosen.may_open(cell.split, config.model_id):
                return State(CLOSED, why)
        return state

    def _choose(self, cell: TrainingCell) -> None:
        """Write its checkpoint down as one that may see a test split."""
        if self._place.split != TEST:
            return
        config = CheckpointConfig.from_json(self._place.checkpoint(cell))
        self._chosen.add(config.model_id, cell.name, config.training_data_hash)

    def _keep(self, cell: Cell) -> None:
        """Put what results are made from into the repository; trials are none."""
        if self._place.split == TEST and isinstance(cell, PredictionCell):
            self._place.keep(cell)

    def go(self, cells: Sequence[Cell]) -> int:
        """Do what is to be done; returns 0, 1 where a cell failed, 130 after Ctrl-C."""
        for number, cell in enumerate(cells, 1):
            state = self.state(cell)
            if state.name == DONE and isinstance(cell, TrainingCell):
                self._choose(cell)  # also those taken from elsewhere
            self._keep(cell)
            if state.name not in (NOT_RUN, STARTED, FAILED):
                continue
            left = self.minutes_left(cells[number - 1 :])
            self._say(
                f"[{number}/{len(cells)}] {cell.name}: about {_hours(self._minutes(cell))}, "
                f"{_hours(left)} for all that is left"
            )
            if self._alone(cell) == INTERRUPTED:
                self._say("stopped; the same command goes on")
                return INTERRUPTED
        return self._sum_up(cells)

    def _alone(self, cell: Cell) -> int:
        """Do one cell, unless another run is at work on it: it is left to that one."""
        folder = self._place.folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        # The system lets go of it when the process is killed.
        at_work = FileLock(folder / LOCK_FILE)
        try:
            at_work.acquire(timeout=0)
        except Timeout:
            self._say(f"{cell.name}: another run is at work on it, and it is left to that")
            return 0
        try:
            # Whoever held it a moment ago may have done it.
            return 0 if self.state(cell).name == DONE else self._do(cell)
        finally:
            at_work.release()

    def _do(self, cell: Cell) -> int:
        """Do one cell and write down how it ended."""
        path = self._place.folder(cell) / RECORD
        record = {**self._place.record(cell), "cell": cell.name, "state": STARTED, "error": ""}
        write_json(path, record)
        begun = time.monotonic()
        status = self._worker(cell)
        record["seconds"] = round(record.get("seconds", 0.0) + time.monotonic() - begun, 1)
        if status == 0:
            record["state"] = DONE
        elif status != INTERRUPTED:
            record["state"] = FAILED
            record["error"] = f"ended with status {status}; its output says why"
        write_json(path, record)
        if status == 0 and isinstance(cell, TrainingCell):
            self._choose(cell)
        self._keep(cell)
        return status

    def _sum_up(self, cells: Iterable[Cell]) -> int:
        states = {c.name: self.state(c) for c in cells}
        open_ones = {n: s for n, s in states.items() if s.name != DONE}
        self._say(f"{len(states) - len(open_ones)} of {len(states)} cells are done")
        for name, state in open_ones.items():
            if state.name != CLOSED:
                self._say(f"  {state.name}: {name} ({state.why})")
        if closed := [n for n, s in open_ones.items() if s.name == CLOSED]:
            self._say(
                f"{len(closed)} cells open a test split: look at {self._chosen.path}, commit it, "
                "and give the same command again"
            )
        return 1 if any(s.name == FAILED for s in states.values()) else 0

    # --- how long

    def _pace(self) -> float:
        """Measured time over expected time, of the cells done here; 1 where there are none."""
        done = [(self._place.state(c), c) for c in self._place.cells.values()]
        done = [(s.seconds / 60, c.minutes) for s, c in done if s.name == DONE and s.seconds]
        return sum(m for m, _ in done) / sum(e for _, e in done) if done else 1.0

    def _minutes(self, cell: Cell) -> float:
        return cell.minutes * self._pace()

    def minutes_left(self, cells: Iterable[Cell]) -> float:
        """About how long the cells that are not done will take."""
        pace = self._pace()
        return sum(c.minutes * pace for c in cells if self._place.state(c).name != DONE)

    def table(self, cells: Sequence[Cell]) -> list[str]:
        """A line a cell: state, time, name, why."""
        lines = []
        for cell in cells:
            state = self.state(cell)
            took = _hours(state.seconds / 60) if state.seconds else f"~{_hours(cell.minutes)}"
            if state.name == DONE and not state.seconds:
                took = ""  # it was done elsewhere
            lines.append(f"{state.name:8} {took:>11}  {cell.name:36} {state.why}".rstrip())
        left = _hours(self.minutes_left(cells))
        return [*lines, f"about {left} for all that is not done"]


def _hours(minutes: float) -> str:
    if minutes < 60:
        return f"{max(1, round(minutes))} min"
    return f"{int(minutes // 60)} h {round(minutes % 60):02d} min"


def subprocess_worker(data: Path, out: Path, split: str, opened: Path, workers: int) -> Worker:
    """A worker that does each cell in a process of its own."""

    def work(cell: Cell) -> int:
        command = [sys.executable, "-m", "ifailsense_ros.experiments.work", "--cell", cell.name]
        command += ["--data", str(data), "--out", str(out), "--split", split]
        command += ["--opened", str(opened), "--workers", str(workers)]
        running: list[subprocess.Popen] = []
        stopped = []

        def stop(*_: object) -> None:
            stopped.append(True)
            for process in running:
                process.send_signal(signal.SIGINT)

        # Whoever ends this program by its id wants the cell to stop as well, and not to lose it.
        before = signal.signal(signal.SIGTERM, stop)
        try:
            process = subprocess.Popen(command)
            running.append(process)
            if stopped:
                stop()
            while True:
                try:
                    status = process.wait()
                    return INTERRUPTED if status == -signal.SIGINT else status
                except KeyboardInterrupt:
                    # The process got it from the terminal, too; it saves its state and ends.
                    continue
        finally:
            signal.signal(signal.SIGTERM, before)

    return work


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ifailsense experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of `make data`")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"))
    parser.add_argument(
        "--only", metavar="GLOB[,GLOB]", help="cells whose name fits, and what they need"
    )
    parser.add_argument("--list", action="store_true", help="cells with state and cost")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("--report", action="store_true", help="only write the report")
    parser.add_argument(
        "--use",
        action="append",
        default=[],
        metavar="CELL=FOLDER",
        help="take a finished run or checkpoint for a training cell; remembered",
    )
    parser.add_argument("--split", default=TEST, help="dev to try things; default test")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the report goes")
    parser.add_argument(
        "--uncommitted",
        action="store_true",
        help="open the test split for checkpoints that are written down but not committed",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    from ifailsense_ros.experiments.report import write_report
    from ifailsense_ros.train.recipes import RECIPES

    results = args.docs / OPENED.parent.name
    chosen = Chosen(results / CHOSEN, uncommitted=args.uncommitted)
    cells = all_cells(RECIPES, args.split)
    place = Workplace.of(args.data, args.out, cells, RECIPES, args.split, results / KEPT)
    worker = subprocess_worker(args.data, args.out, args.split, results / OPENED.name, args.workers)
    runner = Runner(place, chosen, worker)
    try:
        for use in args.use:
            name, equals, folder = use.partition("=")
            if not equals:
                raise ConfigError(f"--use {use}: write CELL=FOLDER")
            place.adopt(name, folder)
        cells = runner.selected(args.only)
        status = 0
        if args.list or args.dry_run:
            kept = cells if args.list else [c for c in cells if runner.state(c).name != DONE]
            print("\n".join(runner.table(kept)))
            return 0
        if not args.report:
            status = runner.go(cells)
        if status != INTERRUPTED:
            print(f"wrote {write_report(place, chosen, args.docs, args.split)}")
    except IFailSenseError as error:
        print(f"ifailsense experiments: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
