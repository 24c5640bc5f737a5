"""A results folder keeps what is written into it, and refuses what is not one."""

import dataclasses
import math

import pytest

from ifailsense_ros.core.errors import DataError
from ifailsense_ros.core.verdict import Outcome, Reason, VoteValue
from ifailsense_ros.data.records import Problem
from ifailsense_ros.evaluate.results import (
    PROBLEMS,
    RESULTS,
    Result,
    iterate_results,
    read_problems,
    read_results,
    write_problems,
    write_results,
)


def a_result(number: int = 0, **changes) -> Result:
    plain = Result(
        detector="tiny@12345678",
        path="bags/desk",
        key=f"desk/{number}",
        instruction="öffne die Schublade",
        label=True,
        category="opening_closing",
        kind="positive",
        task="open_drawer",
        outcome=int(Outcome.SUCCESS),
        reason=0,
        detail="",
        p_success=0.75,
        sources=("fs:1", "vlm"),
        votes=(int(VoteValue.SUCCESS), int(VoteValue.NOT_RUN)),
        p_votes=(0.75, 0.5),
        weights=(1.0, 2.0),
        montage="montages/desk-0.jpg",
        start_ns=1_700_000_000_123_456_789,
        end_ns=1_700_000_004_123_456_789,
        group="desk",
    )
    return dataclasses.replace(plain, **changes)


def test_rows_and_meta_come_back_as_they_were(tmp_path):
    unknown = a_result(
        1, label=None, outcome=0, reason=int(Reason.ABORTED), detail="stopped", votes=(),
        sources=(), p_votes=(), weights=(), montage="",
    )  # fmt: skip
    rows = [a_result(), unknown, a_result(2, label=False)]
    write_results(tmp_path / "new", rows, {"detectors": ["tiny@12345678"]})
    found, meta = read_results(tmp_path / "new")
    assert found == rows
    assert meta == {"detectors": ["tiny@12345678"]}
    assert list(iterate_results(tmp_path / "new")) == rows


def test_no_number_stays_no_number(tmp_path):
    write_results(tmp_path, [a_result(p_success=math.nan, p_votes=(math.nan, 0.2))], {})
    (found,), _ = read_results(tmp_path)
    assert math.isnan(found.p_success) and math.isnan(found.p_votes[0])


def test_the_same_rows_give_the_same_bytes_however_they_come(tmp_path):
    rows = [a_result(n) for n in range(2500)]
    write_results(tmp_path / "a", rows, {"x": 1, "y": 2})
    write_results(tmp_path / "b", iter(rows), {"y": 2, "x": 1})
    assert (tmp_path / "a" / RESULTS).read_bytes() == (tmp_path / "b" / RESULTS).read_bytes()


def test_a_stream_that_fails_leaves_the_older_results(tmp_path):
    write_results(tmp_path, [a_result()], {})

    def failing():
        yield a_result(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_results(tmp_path, failing(), {})
    assert read_results(tmp_path)[0] == [a_result()]


@pytest.mark.parametrize(
    ("label", "outcome", "right"),
    [(True, 1, True), (True, 2, False), (True, 0, False), (False, 2, True), (False, 1, False),
     (False, 0, False), (None, 1, None)],
)  # fmt: skip
def test_unknown_is_wrong_and_no_label_is_neither(label, outcome, right):
    assert a_result(label=label, outcome=outcome).right is right


def test_what_is_no_results_folder_is_said_in_one_line(tmp_path):
    with pytest.raises(DataError, match="ifailsense evaluate --out"):
        read_results(tmp_path)
    (tmp_path / RESULTS).write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_results(tmp_path)
    assert "\n" not in str(caught.value)


def test_problems_are_kept_beside(tmp_path):
    assert read_problems(tmp_path) == []
    found = [Problem("bags/a", "is truncated; record it again")]
    write_problems(tmp_path, found)
    assert read_problems(tmp_path) == found
    (tmp_path / PROBLEMS).write_text("[1]")
    with pytest.raises(DataError, match="cannot be read"):
        read_problems(tmp_path)
