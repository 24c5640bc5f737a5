"""The page of a gallery of mistakes: plain HTML, no script, nothing from the net."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

from ifailsense_ros.core.verdict import VoteValue
from ifailsense_ros.evaluate.mistakes import (
    Share,
    confidence,
    done,
    mistake_of,
    voters,
    wrong_voters,
)
from ifailsense_ros.evaluate.predictions import Prediction

MOST_VALUES = 12
"""Of one attribute in the page's table; all of them are in ``shares.csv``."""

_STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 1480px; margin: 1.5em auto; padding: 0 1em;
  color: #191919; background: #fafafa }
table { border-collapse: collapse; margin: .5em 1.5em 1em 0 }
td, th { padding: .1em .7em; text-align: left; border-bottom: 1px solid #ddd }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
tr.clear td { font-weight: bold }
.tables { display: flex; flex-wrap: wrap; align-items: flex-start }
.mistake { display: flex; flex-wrap: wrap; gap: 1.2em; padding: 1em 0; border-top: 2px solid #ccc }
.mistake img { max-width: 100%; height: auto }
.said { font-size: 1.15em }
details { margin-top: .6em }
"""


@dataclass(frozen=True)
class Shown:
    """A mistake on the page.

    Attributes:
        rank: from 1, the surest first.
        prediction: with its pair.
        seen, stored: pictures, relative to the page: the montage, the stored keyframes.
        duration_s: of the episode.
    """

    rank: int
    prediction: Prediction
    seen: str
    stored: str
    duration_s: float


def page(
    meta: Mapping[str, Any],
    predictions: Sequence[Prediction],
    shown: Sequence[Shown],
    common: Sequence[Share],
    has_sheet: bool,
) -> str:
    """The page as HTML.

    Args:
        meta: how the predictions were made.
        predictions: all pairs that count.
        shown: the mistakes to show.
        common: what mistakes share (`mistakes.shares`).
        has_sheet: whether ``sheet.jpg`` lies beside the page.
    """
    title = f"Mistakes of {meta['checkpoint']} on {meta['data']}, {meta['split']}"
    sheet = '<p><a href="sheet.jpg">all on one sheet</a></p>' if has_sheet else ""
    body = [
        f"<h1>{escape(title)}</h1>",
        _how(meta),
        _counts(predictions, len(shown)),
        sheet,
        "<h2>What the mistakes share</h2>",
        "<p>Error rate of a group of pairs, and how many times that of all pairs it is (lift). "
        "Bold: the 95 % interval leaves out the error rate of all pairs, as one group in twenty "
        "does by chance. No verdict counts as a mistake.</p>",
        f'<div class="tables">{"".join(_shares(common))}</div>' if common else "<p>None.</p>",
        "<h2>Who was wrong</h2>",
        f'<div class="tables">{_voters(predictions)}{_how_many_wrong(predictions)}</div>',
        f"<h2>The {len(shown)} most confident mistakes</h2>",
        *(_mistake(one) for one in shown),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _how(meta: Mapping[str, Any]) -> str:
    text = ", ".join(f"{name} {meta[name]}" for name in ("ablation", "phrasings", "date"))
    return f"<p>{escape(text)}<br><code>{escape(str(meta['command']))}</code></p>"


def _counts(predictions: Sequence[Prediction], shown: int) -> str:
    kinds = Counter(mistake_of(p) for p in predictions if not p.right)
    wrong = kinds.total()
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return (
        f"<p>{len(predictions)} pairs, {wrong} wrong "
        f"({100 * wrong / len(predictions):.1f} %){': ' + escape(listed) if listed else ''}; "
        f"shown: {shown}.</p>"
    )


def _table(head: Sequence[str], rows: Iterable[tuple[Sequence[Any], bool]]) -> str:
    """A table whose first column is text, the others numbers; bold rows where told."""
    lines = ["<tr>" + "".join(_cell("th", n, text) for n, text in enumerate(head)) + "</tr>"]
    for values, bold in rows:
        cells = "".join(_cell("td", n, value) for n, value in enumerate(values))
        lines.append(f"<tr{' class=clear' if bold else ''}>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _cell(tag: str, number: int, value: Any) -> str:
    return f"<{tag}{' class=n' if number else ''}>{escape(str(value))}</{tag}>"


def _shares(common: Sequence[Share]) -> Iterable[str]:
    head = ("wrong", "pairs", "rate", "95 %", "lift")
    for attribute, group in groupby(common, key=lambda s: s.attribute):
        of_attribute = list(group)
        kept = sorted(of_attribute, key=lambda s: -s.mistakes)[:MOST_VALUES]
        rows = [
            (
                (
                    *(s.value, s.mistakes, s.pairs, f"{s.mistakes / s.pairs:.3f}"),
                    *(f"{s.low:.3f}-{s.high:.3f}", f"{s.lift:.2f}"),
                ),
                s.clear,
            )
            for s in of_attribute
            if s in kept
        ]
        yield _table((attribute, *head), rows)


def _voters(predictions: Sequence[Prediction]) -> str:
    head = ("voter", "error on all pairs", "right in mistakes")
    rows = [((v.source, f"{v.error:.3f}", v.right_in_mistakes), False) for v in voters(predictions)]
    return _table(head, rows)


def _how_many_wrong(predictions: Sequence[Prediction]) -> str:
    wrong = Counter((wrong_voters(p), len(p.votes)) for p in predictions if not p.right)
    rows = [((f"{n} of {of}", count), False) for (n, of), count in sorted(wrong.items())]
    return _table(("wrong voters", "mistakes"), rows)


def _mistake(one: Shown) -> str:
    p = one.prediction
    facts = [
        ("asked for", p.asked_task),
        ("done", done(p)),
        ("category", p.category),
        ("contrast", " + ".join(p.contrast)),
        ("phrasing", "" if p.phrasing < 0 else p.phrasing),
        ("kind", p.kind),
        ("duration", f"{one.duration_s:.1f} s"),
        ("p(success)", f"{p.p_success:.3f}"),
        ("episode", p.key),
    ]
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in facts
        if value != ""
    )
    votes = [
        (source, VoteValue(vote).name.lower(), "" if math.isnan(prob) else f"{prob:.3f}", weight)
        for source, vote, prob, weight in zip(p.sources, p.votes, p.p_votes, p.weights, strict=True)
    ]
    ballot = _table(("voter", "vote", "p(success)", "weight"), ((v, False) for v in votes))
    title = f"{one.rank}. {mistake_of(p)}, {100 * confidence(p):.1f} % sure"
    return (
        f'<div class="mistake" id="m{one.rank}"><div>'
        f'<img src="{one.seen}" alt="montage {one.rank}" loading="lazy">'
        f'<details><summary>stored keyframes</summary><img src="{one.stored}" '
        f'alt="keyframes {one.rank}" loading="lazy"></details></div>'
        f"<div><h3>{escape(title)}</h3><p class=said>&ldquo;{escape(p.instruction)}&rdquo;</p>"
        f"<table>{rows}</table>{ballot}</div></div>"
    )
