"""Plots as inline SVG. Colours and strokes are the style sheet's, so that dark pages get theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from markupsafe import Markup

from ifailsense_ros.evaluate.report.curves import Curve, thinned
from ifailsense_ros.evaluate.report.figures import Bar, DetectorFigures

SERIES = 6
"""Colours and dashes that the style sheet has; more detectors begin again."""

_SIDE = 230
_LEFT, _TOP, _RIGHT, _BOTTOM = 54, 10, 14, 44
_WIDTH, _HEIGHT = _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def series(number: int) -> str:
    """Class of a detector's marks, by its place among the detectors."""
    return f"s{number % SERIES}"


def _x(value: float) -> str:
    return f"{_LEFT + _SIDE * value:.1f}"


def _y(value: float) -> str:
    return f"{_TOP + _SIDE * (1 - value):.1f}"


def _square(title: str, x_name: str, y_name: str, inside: Iterable[Markup]) -> Markup:
    """A plot over the unit square."""
    parts = []
    for tick in _TICKS:
        at_x, at_y, label = _x(tick), _y(tick), f"{tick:g}"
        parts.append(
            Markup(
                '<line class="grid" x1="{0}" x2="{0}" y1="{2}" y2="{3}"/>'
                '<line class="grid" y1="{1}" y2="{1}" x1="{4}" x2="{5}"/>'
                '<text class="tick" x="{0}" y="{6}" text-anchor="middle">{7}</text>'
                '<text class="tick" x="{8}" y="{1}" dy=".35em" text-anchor="end">{7}</text>'
            ).format(
                *(at_x, at_y, _y(0), _y(1), _x(0), _x(1)),
                *(_TOP + _SIDE + 16, label, _LEFT - 6),
            )
        )
    parts.append(
        Markup(
            '<text class="axis" x="{0}" y="{1}" text-anchor="middle">{2}</text>'
            '<text class="axis" transform="translate(12 {3}) rotate(-90)" text-anchor="middle">'
            "{4}</text>"
        ).format(_x(0.5), _HEIGHT - 8, x_name, _y(0.5), y_name)
    )
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH, _HEIGHT, title, Markup("").join([*parts, *inside]))


def _path(css: str, xs: Sequence[float], ys: Sequence[float]) -> Markup:
    points = " ".join(f"{_x(x)},{_y(y)}" for x, y in zip(xs, ys, strict=True))
    return Markup('<polyline class="{}" points="{}"/>').format(css, points)


def _dot(css: str, x: float, y: float, radius: float = 4.5) -> Markup:
    return Markup('<circle class="{}" cx="{}" cy="{}" r="{}"/>').format(css, _x(x), _y(y), radius)


def _curves(
    detectors: Sequence[DetectorFigures], curve_of: Callable[[DetectorFigures], Curve | None]
) -> Iterable[Markup]:
    for number, figures in enumerate(detectors):
        curve = curve_of(figures)
        if curve is not None:
            small = thinned(curve)
            yield _path(f"curve {series(number)}", small.x, small.y)


def _areas(
    detectors: Sequence[DetectorFigures],
    curve_of: Callable[[DetectorFigures], Curve | None],
    what: str,
) -> str:
    curves = [(f.name, curve_of(f)) for f in detectors]
    return "; ".join(f"{name}: {what} {curve.area:.3f}" for name, curve in curves if curve)


def roc_plot(detectors: Sequence[DetectorFigures]) -> Markup:
    """ROC curves; a dot where the verdicts themselves lie."""
    marks = [_path("chance", (0, 1), (0, 1)), *_curves(detectors, lambda f: f.roc)]
    for number, figures in enumerate(detectors):
        if figures.working_point is not None:
            marks.append(_dot(f"dot {series(number)}", *figures.working_point))
    title = f"ROC curves. {_areas(detectors, lambda f: f.roc, 'area')}"
    return _square(title, "failures called SUCCESS", "successes called SUCCESS", marks)


def pr_plot(detectors: Sequence[DetectorFigures], failure: bool) -> Markup:
    """Precision-recall curves with success, or failure, as the positive class."""

    def curve_of(figures: DetectorFigures) -> Curve | None:
        return figures.pr_failure if failure else figures.pr_success

    what = "failures" if failure else "successes"
    title = f"Precision and recall of {what}. {_areas(detectors, curve_of, 'average precision')}"
    marks = list(_curves(detectors, curve_of))
    return _square(title, f"recall of {what}", f"precision of {what}", marks)


def reliability_plot(detectors: Sequence[DetectorFigures]) -> Markup:
    """Share of successes over mean p_success, bin by bin, with 95 % intervals."""
    marks = [_path("chance", (0, 1), (0, 1))]
    said = []
    for number, figures in enumerate(detectors):
        css = series(number)
        for b in figures.bins:
            marks.append(_path(f"whisker {css}", (b.mean_p, b.mean_p), (b.low, b.high)))
        if figures.bins:
            xs, ys = zip(*((b.mean_p, b.share) for b in figures.bins), strict=True)
            marks.append(_path(f"curve {css}", xs, ys))
            most = max(b.n for b in figures.bins)
            # The area of a dot stands for its episodes.
            marks += [
                _dot(f"dot {css}", b.mean_p, b.share, 2 + 4 * float(np.sqrt(b.n / most)))
                for b in figures.bins
            ]
        if figures.reliability is not None:
            said.append(f"{figures.name}: calibration error {figures.reliability.ece:.3f}")
    title = f"Reliability. {'; '.join(said)}"
    return _square(title, "p(success) as said", "share that were successes", marks)


def bar_plot(bar: Bar, number: int) -> Markup:
    """A bar from 0 to 1 with its interval; the numbers stand beside it."""
    whisker = Markup("")
    if bar.low is not None and bar.high is not None:
        whisker = Markup(
            '<path class="range" d="M{0:.1f} 6H{1:.1f}M{0:.1f} 3V9M{1:.1f} 3V9"/>'
        ).format(100 * bar.low, 100 * bar.high)
    return Markup(
        '<svg class="bar {}" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="12"/>'
        '<rect class="fill" width="{:.1f}" height="12"/>{}</svg>'
    ).format(series(number), 100 * bar.value, whisker)
