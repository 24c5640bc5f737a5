"""What the experiment's tries say, with 95 % intervals from a bootstrap of whole tasks.

The monitors worked on the same tasks, so a resample draws the same tasks for all of them: what they
are compared by has the interval of the comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ifailsense_ros.closed_loop.experiment import NO_VERDICT, Try
from ifailsense_ros.closed_loop.monitors import NOBODY, ORACLE, RETRY_ONCE
from ifailsense_ros.closed_loop.recovery import Next
from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.evaluate.metrics import RESAMPLES, SEED

COUNTS = (
    "tasks",
    "success",
    "tries",
    "seconds",
    "good",
    "good_again",
    "bad",
    "bad_accepted",
    "help",
    "help_on_success",
    "judged",
    "unknown",
)
"""What is counted of every task: tries whose attempt had succeeded (`good`), those that were tried
again all the same, tries whose attempt had failed (`bad`), those that ended the task as done."""

RATIOS = {
    "success": ("success", "tasks"),
    "tries": ("tries", "tasks"),
    "seconds": ("seconds", "tasks"),
    "wasted_retries": ("good_again", "good"),
    "missed_failures": ("bad_accepted", "bad"),
    "help": ("help", "tasks"),
    "help_on_success": ("help_on_success", "tasks"),
    "unknown": ("unknown", "judged"),
}
"""Figure -> what is divided by what."""

_PLACE = {name: number for number, name in enumerate(COUNTS)}


@dataclass
class Tally:
    """Tries counted up, task by task and monitor by monitor."""

    counts: dict[str, dict[tuple[int, int], np.ndarray]] = field(default_factory=dict)
    categories: dict[tuple[int, int], str] = field(default_factory=dict)

    def add(self, row: Try) -> None:
        """Count one try; those of a task come in their order."""
        task = (row.seed, row.index)
        self.categories[task] = row.category
        of_monitor = self.counts.setdefault(row.monitor, {})
        counts = of_monitor.setdefault(task, np.zeros(len(COUNTS)))
        again = row.choice in (Next.RETRY.value, Next.REGROUND.value)
        happened = {
            "tries": 1.0,
            "seconds": row.duration_s + row.home_s,
            "good": row.success,
            "good_again": row.success and again,
            "bad": not row.success,
            "bad_accepted": not row.success and row.choice == Next.DONE.value,
            "judged": row.outcome != NO_VERDICT,
            "unknown": row.outcome == Outcome.UNKNOWN,
        }
        if not again:
            helped = row.choice == Next.HELP.value
            happened |= {
                "tasks": 1.0,
                "success": row.success,
                "help": helped,
                "help_on_success": helped and row.success,
            }
        for name, value in happened.items():
            counts[_PLACE[name]] += value

    def table(self, monitor: str, tasks: Sequence[tuple[int, int]]) -> np.ndarray:
        """Counts of tasks, (tasks, len(COUNTS))."""
        return np.stack([self.counts[monitor][task] for task in tasks])


def figures(rows: Iterable[Try], resamples: int = RESAMPLES) -> dict:
    """All figures of the experiment.

    Args:
        rows: every try of every monitor.
        resamples: of the bootstrap.

    Returns:
        `tasks` and `seeds`; under `monitors` by name each of `RATIOS` with its interval
        (`NAME_95`), by seed and by category its success; and, of all but the reference monitors,
        `closed`: the share of the distance from no monitor to the oracle, and `over_retrying`:
        success minus that of always retrying at equal mean tries.

    Raises:
        ValueError: no rows, or monitors that did not work on the same tasks.
    """
    tally = Tally()
    for row in rows:
        tally.add(row)
    tasks = sorted(tally.categories)
    if not tasks or any(set(found) != set(tasks) for found in tally.counts.values()):
        raise ValueError("every monitor must have tried the same tasks, at least one")
    tables = {monitor: tally.table(monitor, tasks) for monitor in tally.counts}
    draws = np.random.default_rng(SEED).multinomial(
        len(tasks), np.full(len(tasks), 1 / len(tasks)), size=resamples
    )
    whole = {monitor: table.sum(0) for monitor, table in tables.items()}
    drawn = {monitor: draws @ table for monitor, table in tables.items()}
    out: dict = {
        "tasks": len(tasks),
        "seeds": sorted({seed for seed, _ in tasks}),
        "monitors": {},
    }
    for monitor, table in tables.items():
        found: dict = {}
        for name in RATIOS:
            _put(found, name, _ratio(whole[monitor], name), _ratio(drawn[monitor], name))
        if monitor not in (NOBODY, ORACLE, RETRY_ONCE):
            for name, compare in (("closed", _closed), ("over_retrying", _over_retrying)):
                _put(found, name, compare(whole, monitor), compare(drawn, monitor))
        found["by_seed"] = {
            str(seed): _success_of(table, [task[0] == seed for task in tasks])
            for seed in out["seeds"]
        }
        found["by_category"] = {
            category: _success_of(table, [tally.categories[task] == category for task in tasks])
            for category in sorted(set(tally.categories.values()))
        }
        out["monitors"][monitor] = found
    return out


def _ratio(counts: np.ndarray, name: str) -> np.ndarray:
    above, below = RATIOS[name]
    return _divided(counts[..., _PLACE[above]], counts[..., _PLACE[below]])


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to divide by."""
    above, below = np.asarray(above, float), np.asarray(below, float)
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below != 0)


def _closed(counts: Mapping[str, np.ndarray], monitor: str) -> np.ndarray:
    success = {name: _ratio(counts[name], "success") for name in (NOBODY, ORACLE, monitor)}
    return _divided(success[monitor] - success[NOBODY], success[ORACLE] - success[NOBODY])


def _over_retrying(counts: Mapping[str, np.ndarray], monitor: str) -> np.ndarray:
    """Against retrying a share of all tasks, drawn blindly, that takes as many tries in the mean;
    where the monitor takes more tries than always retrying once, against that.
    """
    tries = {n: _ratio(counts[n], "tries") for n in (NOBODY, RETRY_ONCE, monitor)}
    success = {n: _ratio(counts[n], "success") for n in (NOBODY, RETRY_ONCE, monitor)}
    share = _divided(tries[monitor] - tries[NOBODY], tries[RETRY_ONCE] - tries[NOBODY])
    blind = success[NOBODY] + np.clip(share, 0, 1) * (success[RETRY_ONCE] - success[NOBODY])
    return success[monitor] - blind


def _success_of(table: np.ndarray, chosen: Sequence[bool]) -> float:
    return round(float(_ratio(table[np.array(chosen)].sum(0), "success")), 4)


def _put(out: dict, name: str, value: np.ndarray, drawn: np.ndarray) -> None:
    known = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(known):
        out[name] = out[f"{name}_95"] = None
        return
    out[name] = round(float(value), 4)
    out[f"{name}_95"] = [round(float(q), 4) for q in np.quantile(known, [0.025, 0.975])]
