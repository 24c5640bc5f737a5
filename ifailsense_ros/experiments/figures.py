"""The report's pictures, from predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ifailsense_ros.core.calibration import reliability
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.data.failure_classes import SEMANTIC_FAILURES
from ifailsense_ros.evaluate.breakdown import by_class, contrast_name, grouped
from ifailsense_ros.experiments.paper import FIGURE_6
from ifailsense_ros.experiments.results import Results
from ifailsense_ros.experiments.sections import FAILURES_PICTURE, recipes_of
from ifailsense_ros.experiments.trust import CALIBRATION_PICTURE, CONTRAST_PICTURE

# Told apart by lightness as well as by hue, so that grey prints and most eyes can read them.
COLOURS = ("#1b4f72", "#e59866", "#7fb3d5", "#7b7d7d")
_NOTHING = "not run"


def draw(results: Results, folder: Path) -> None:
    """Write the pictures that the page shows into a folder.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("the report's pictures need matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    for file, picture in (
        (FAILURES_PICTURE, _failures),
        (CONTRAST_PICTURE, _contrast),
        (CALIBRATION_PICTURE, _calibration),
    ):
        if file in results.pictures:
            picture(results, folder / file)
        else:  # of another time, and no longer on the page
            (folder / file).unlink(missing_ok=True)


def _axes(width: float, height: float, count: int = 1, width_ratios: Sequence[int] | None = None):
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = pyplot.subplots(
        1,
        count,
        figsize=(width, height),
        squeeze=False,
        layout="constrained",
        width_ratios=width_ratios,
    )
    return figure, list(axes[0])


def _save(figure, path: Path) -> None:
    from matplotlib import pyplot

    # Without the program's version in it, the same predictions give the same file.
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)


def _bars(axis, groups: list[str], series: dict[str, list[dict | None]], metric: str) -> None:
    """Grouped bars with 95 % intervals; a missing figure is said in words."""
    width = 0.8 / max(1, len(series))
    for n, (label, found) in enumerate(series.items()):
        for place, one in enumerate(found):
            x = place + (n - (len(series) - 1) / 2) * width
            if one is None or one[metric] is None:
                axis.text(x, 0.02, _NOTHING, rotation=90, ha="center", fontsize=7, color="#777777")
                continue
            low, high = one[f"{metric}_95"]
            value = one[metric]
            axis.bar(
                x,
                value,
                width * 0.92,
                color=COLOURS[n % len(COLOURS)],
                label=label if place == next(i for i, f in enumerate(found) if f) else None,
                yerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
                error_kw={"lw": 0.8, "capsize": 1.5},
            )
    axis.set_xticks(range(len(groups)), [g.replace("_", "\n") for g in groups])
    axis.set_ylim(0, 1.02)
    axis.margins(x=0.02)


def _failures(results: Results, path: Path) -> None:
    """Figure 6: detection of each class, and false alarms on the twins; two PoV, as there."""
    figure, (above,) = _axes(10.5, 4.4)
    found = {}
    for recipe in recipes_of(results):
        loaded = results.get(f"{recipe}/failures")
        found[recipe] = {} if loaded is None else by_class(loaded.rows)
    groups = list(next(f for f in found.values() if f))
    series = {}
    for recipe, classes in found.items():
        said = "SMF alone" if recipe.endswith("smf") else "SMF and unfinished episodes"
        series[f"{recipe}: trained on {said}"] = [classes.get(g) for g in groups]
    _bars(above, groups, series, "failure_recall")
    width, alarms = 0.8 / len(series), "false alarms on the twins"
    for n, classes in enumerate(series.values()):
        for place, one in enumerate(classes):
            if one is not None and one["false_alarms"] is not None:
                x = place + (n - (len(series) - 1) / 2) * width
                said, alarms = alarms, None  # one entry in the legend
                above.plot(
                    [x - width * 0.4, x + width * 0.4],
                    [one["false_alarms"]] * 2,
                    color="#c0392b",
                    lw=2.2,
                    label=said,
                )
    above.axhline(
        FIGURE_6["I-FailSense"],
        color="#444444",
        ls=":",
        lw=1,
        label="paper, all classes, on AHA (another data set)",
    )
    named = [f"{g} (semantic)" if g in SEMANTIC_FAILURES else g for g in groups]
    labels = [g.replace("_", "\n").replace(" ", "\n") for g in named]
    above.set_xticks(range(len(groups)), labels)
    above.set_ylabel("detected (95 % interval)")
    above.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2, frameon=False)
    _save(figure, path)


def _contrast(results: Results, path: Path) -> None:
    figure, (left, right) = _axes(14, 4.0, 2, width_ratios=(2, 1))
    for axis, key, title in (
        (left, contrast_name, "in what the wrong instruction differs"),
        (right, lambda p: p.category, "task category"),
    ):
        found = {}
        for recipe in recipes_of(results):
            for said, tail in (("2 PoV", ""), ("1 PoV", "-1pov")):
                loaded = results.get(f"{recipe}{tail}/smf")
                if loaded is not None:
                    found[f"{recipe}, {said}"] = grouped(loaded.rows, key)
        groups = sorted({g for one in found.values() for g in one})
        series = {label: [one.get(g) for g in groups] for label, one in found.items()}
        _bars(axis, groups, series, "accuracy")
        axis.set_xticks(
            range(len(groups)), [g.replace("+", "\n+").replace("_", "\n") for g in groups]
        )
        axis.axhline(0.9, color="#444444", ls=":", lw=1)
        axis.set_title(title, fontsize=10)
        axis.set_ylabel("accuracy (95 % interval)")
    labels = left.get_legend_handles_labels()
    figure.legend(*labels, loc="outside lower center", ncol=4, frameon=False)
    _save(figure, path)


def _calibration(results: Results, path: Path) -> None:
    figure, axes = _axes(9, 5.0, 2)
    for axis, (said, tail) in zip(axes, (("2 PoV", ""), ("1 PoV", "-1pov")), strict=True):
        axis.plot([0, 1], [0, 1], color="#444444", ls=":", lw=1)
        for n, (what, label) in enumerate(
            (("smf", "SMF pairs"), ("failures", "failures and twins"), ("unseen", "unseen world"))
        ):
            loaded = results.get(f"sim-tiny{tail}/{what}")
            sure = [] if loaded is None else loaded.rows
            sure = [p for p in sure if p.counted and p.outcome != Outcome.UNKNOWN]
            if not sure:
                axis.plot([], [], color=COLOURS[n], label=f"{label}: {_NOTHING}")
                continue
            r = reliability([p.p_success for p in sure], [p.label for p in sure])
            filled = r.counts > 0
            sizes = 12 + 160 * r.counts[filled] / r.counts.sum()
            axis.plot(
                r.mean_p[filled], r.success_share[filled], color=COLOURS[n], lw=1, label=label
            )
            axis.scatter(r.mean_p[filled], r.success_share[filled], s=sizes, color=COLOURS[n])
        axis.set_title(f"sim-tiny, {said}", fontsize=10)
        axis.set_xlabel("p_success, mean of a bin (dot: share of verdicts in it)")
        axis.set_ylabel("share of successes")
        axis.set_xlim(-0.03, 1.03)
        axis.set_ylim(-0.03, 1.03)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)
    _save(figure, path)
