"""Thousands of episodes with faults drawn at random: each START gets one verdict, the right one.

    python -m benchmarks.soak --episodes 10000 --seed 0
    python -m benchmarks.soak --episodes 200 --detector sim-tiny

The monitor runs as its own process over DDS, and is played to by benchmarks/soak_scenarios.py.
Checked: exactly one verdict per START, with a reason that the scenario allows; no crash, nothing
that hangs; diagnostics go on; the monitor's own counts agree; at times a second monitor is started,
interrupted by SIGINT with an episode in each state, and must settle them. Memory of the monitor's
process is reported at 1,000 episodes and at the end.

Ctrl-C stops it; the same command goes on where it stopped (`--out` keeps the state), with a new
monitor process.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import rclpy
from tqdm import tqdm

from benchmarks.soak_driver import Driver, MonitorProcess, SoakError, environment
from benchmarks.soak_scenarios import COMMON, JUDGED, SUCCESS, TEXT, WITH_DOUBLE
from ifailsense_ros.core.verdict import Reason
from ifailsense_ros.msg import EpisodeEvent

DOUBLE = "benchmarks.soak_double:load"
MEMORY_FROM = 1000
"""Episodes after which memory must not grow any more."""
_RSS_EVERY = 25
TOO_LONG_S = 1.2
"""Between two messages of /diagnostics."""
INTERRUPT_EVERY = 400
"""Episodes between two monitors that are interrupted."""


@dataclass
class Silences:
    """How regularly /diagnostics came, 1 Hz +-20 % being promised.

    Attributes:
        number: of intervals.
        too_long: of them, longer than 1.2 s.
        longest: in seconds.
    """

    number: int = 0
    too_long: int = 0
    longest: float = 0.0

    def add(self, silences: Sequence[float]) -> None:
        """Count these too."""
        self.number += len(silences)
        self.too_long += sum(silence > TOO_LONG_S for silence in silences)
        self.longest = max(self.longest, *silences, 0.0)

    def __str__(self) -> str:
        share = self.too_long / max(self.number, 1)
        return (
            f"longest silence {self.longest:.2f} s, {self.too_long} of {self.number} "
            f"({share:.2%}) longer than {TOO_LONG_S} s"
        )


class Soak:
    """The run and its state.

    Args:
        episodes: to play in all.
        seed: of what is drawn.
        detector: parameter of the monitor.
        out: folder for the state and the logs.
        interrupt_every: episodes between two monitors that are interrupted.
    """

    def __init__(
        self, episodes: int, seed: int, detector: str, out: Path, interrupt_every: int
    ) -> None:
        self._episodes = episodes
        self._seed = seed
        self._detector = detector
        self._out = out
        self._interrupt_every = interrupt_every
        self._state_file = out / "soak.json"
        self.done = 0
        self.drawn: Counter[str] = Counter()
        self.interrupted = 0
        self.rss: list[tuple[int, float]] = []
        self.silences = Silences()
        out.mkdir(parents=True, exist_ok=True)
        if self._state_file.exists():
            self._resume()

    @property
    def _settings(self) -> dict[str, object]:
        return {"seed": self._seed, "detector": self._detector}

    def _resume(self) -> None:
        state = json.loads(self._state_file.read_text())
        if state["settings"] != self._settings:
            sys.exit(f"soak: error: {self._out} has a run of other settings; give another --out")
        self.done, self.interrupted = state["done"], state["interrupted"]
        self.drawn = Counter(state["drawn"])
        self.silences = Silences(**state["silences"])

    def _save(self) -> None:
        state = {
            "settings": self._settings,
            "done": self.done,
            "drawn": self.drawn,
            "interrupted": self.interrupted,
            "silences": dataclasses.asdict(self.silences),
            "rss_mb": self.rss,
        }
        self._state_file.write_text(json.dumps(state))

    def run(self) -> None:
        """Play what is left.

        Raises:
            SoakError: something that must hold did not.
        """
        monitor = MonitorProcess("soak", self._detector, self._out / "monitor.log")
        driver = None
        try:
            driver = Driver("soak", monitor, self._detector == DOUBLE)
            self._play(driver, monitor)
        finally:
            self._save()
            if driver is not None:
                driver.close()
            monitor.close()

    def _play(self, driver: Driver, monitor: MonitorProcess) -> None:
        scenarios = WITH_DOUBLE if self._detector == DOUBLE else COMMON
        before, next_rss = self.done, self.done
        # Of another sequence after an interruption, but of one that can be repeated.
        random = Random(f"{self._seed}/{self.done}")
        with tqdm(total=self._episodes, initial=self.done, unit="episode") as bar:
            while self.done < self._episodes:
                (scenario,) = random.choices([*scenarios], [*scenarios.values()])
                try:
                    scenario(driver, random)
                    driver.settle()
                except SoakError as error:
                    where = f"{scenario.__name__}, after {self.done} episodes, seed {self._seed}"
                    raise SoakError(f"{where}: {error}") from error
                self.drawn[scenario.__name__] += 1
                played = before + driver.started - self.done
                bar.update(played)
                self.done += played
                if self.done >= next_rss:
                    self.rss.append((self.done - before, monitor.rss_mb()))
                    self.silences.add(driver.take_silences())
                    self._save()
                    next_rss += _RSS_EVERY
                if self.done // self._interrupt_every > self.interrupted:
                    self._interrupt()
        self._compare_counts(driver)

    def _compare_counts(self, driver: Driver) -> None:
        """The monitor has counted what was played to it."""
        expected = str(driver.started)
        driver.until(
            lambda: driver.values.get("episodes/verdicts") == expected,
            f"diagnostics to count {expected} verdicts",
        )
        if driver.values["episodes/starts"] != expected:
            raise SoakError(f"{driver.values['episodes/starts']} STARTs counted, not {expected}")

    def _interrupt(self) -> None:
        """Another monitor: SIGINT with one episode judged, one queued and one running."""
        self.interrupted += 1
        monitor = MonitorProcess("brief", self._detector, self._out / "brief.log")
        driver = None
        try:
            driver = Driver("brief", monitor, self._detector == DOUBLE)
            driver.start(TEXT, Reason.CAMERA_ABSENT)
            driver.film(cameras=("exo",))
            driver.event(EpisodeEvent.END)
            driver.settle()
            for text in ("sleep 30", TEXT):
                # A real detector does not sleep, and may have judged them.
                done = () if self._detector == DOUBLE else JUDGED
                driver.start(text, Reason.SHUT_DOWN, *done, verdict=SUCCESS)
                driver.film()
                driver.event(EpisodeEvent.END)
            driver.start(TEXT, Reason.SHUT_DOWN)
            driver.film(3)
            driver.spin(0.3)
            monitor.interrupt()
            status = monitor.wait()
            if status != 0:
                raise SoakError(f"after SIGINT the monitor ended with {status}")
            driver.spin(1.0)
            driver.settle_now()
        finally:
            if driver is not None:
                driver.close()
            monitor.close()

    def report(self) -> str:
        """Figures of the run, as Markdown."""
        lines = [f"- {self.done} episodes, {self.interrupted} monitors interrupted"]
        lines.append(f"- /diagnostics: {self.silences}")
        if growth := memory_growth(self.rss):
            lines.append(growth)
        lines += ["", "| scenario | drawn |", "|---|---|"]
        lines += [f"| {name} | {count} |" for name, count in sorted(self.drawn.items())]
        return "\n".join(lines)


def memory_growth(rss: list[tuple[int, float]]) -> str:
    """Resident memory after 1,000 episodes and at the end, in words; empty for a short run.

    Each is the median of five samples: single values go up and down with what is in flight.
    """
    late = [mb for episode, mb in rss if episode >= MEMORY_FROM]
    if len(late) < 20:
        return ""
    first, last = sorted(late[:5])[2], sorted(late[-5:])[2]
    return (
        f"- memory: {first:.1f} MB after {MEMORY_FROM} episodes, {last:.1f} MB at the end "
        f"({rss[-1][0]} in one process): {100 * (last / first - 1):+.1f} %"
    )


def main(argv: list[str] | None = None) -> int:
    """Command line; 1 if something that must hold did not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detector", default=DOUBLE)
    parser.add_argument("--out", type=Path, default=Path("out/soak"))
    parser.add_argument("--interrupt-every", type=int, default=INTERRUPT_EVERY)
    args = parser.parse_args(argv)
    environment()
    rclpy.init()
    started = time.monotonic()
    soak = Soak(args.episodes, args.seed, args.detector, args.out, args.interrupt_every)
    try:
        soak.run()
    except SoakError as error:
        print(f"soak: FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nsoak: stopped after {soak.done} episodes; the same command goes on")
        return 130
    finally:
        rclpy.try_shutdown()
    print(f"{soak.report()}\n\n{(time.monotonic() - started) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
