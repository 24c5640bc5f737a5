"""Words and numbers on the page. What comes from data is text that nobody vouches for: the template
passes all of it through `plain`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

LONGEST = 2000
"""Characters of one text; an instruction of a megabyte must not make the page useless."""

_NOT_TEXT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufeff\ufffe\uffff]"
)
"""Control characters, those that turn the direction of other people's text, and half characters
(file names), which no page can hold."""


def plain(value: object) -> str:
    """A text from data, fit to be escaped: without control characters, and of bearable length."""
    whole = _NOT_TEXT.sub("\ufffd", str(value))
    if len(whole) <= LONGEST:
        return whole
    return f"{whole[:LONGEST]}… ({len(whole) - LONGEST} more characters)"


def percent(value: float | None) -> str:
    """ "91.3 %"; "–" where there is no number."""
    return "–" if _none(value) else f"{100 * value:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """ "88.0–93.9", in per cent; empty where there is none."""
    return "" if _none(low) or _none(high) else f"{100 * low:.1f}–{100 * high:.1f}"


def p_value(p: float | None) -> str:
    """ "0.031", "0.0005", "3e-07"."""
    if _none(p):
        return "–"
    if p < 0.0001:
        return f"{p:.0e}"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.4f}"


def probability(p: float | None) -> str:
    """ "0.97"; "–" where nothing was said. Never rounded to certainty."""
    if _none(p):
        return "–"
    return f"{min(max(p, 0.001), 0.999):.3f}" if 0 < p < 1 else f"{p:.0f}"


def sure(confidence: float) -> str:
    """ "97.3 %"; never 100."""
    return percent(min(confidence, 0.999))


def signed_percent(value: float | None) -> str:
    """ "+2.5"."""
    return "–" if _none(value) else f"{100 * value:+.1f}"


def words(name: str) -> str:
    """ "incomplete_grasp" -> "incomplete grasp"."""
    return name.replace("_", " ")


def flat(meta: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Name and value of everything in a nested dict."""
    for name, value in meta.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        else:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{above}{name}", shown


def _none(value: float | None) -> bool:
    return value is None or math.isnan(value)
