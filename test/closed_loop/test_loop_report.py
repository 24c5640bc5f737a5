"""Page, plots and film from made-up figures and stand-ins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs mujoco: the `sim` extra")
pytest.importorskip("matplotlib")

from PIL import Image
from stand_ins import RiseDetector
from test_early import made_up
from test_figures import all_of, nobody
from test_figures import made_up as tries_made_up

from ifailsense_ros.closed_loop import early, early_figures, film, report
from ifailsense_ros.closed_loop.command import FIGURES
from ifailsense_ros.closed_loop.experiment import Loaded, carry_out
from ifailsense_ros.closed_loop.monitors import Watching
from ifailsense_ros.closed_loop.scenes import Course, setup_of
from ifailsense_ros.closed_loop.settings import load_settings

pytestmark = pytest.mark.sim

MADE = {
    "detector": "tiny@1",
    "fixed": True,
    "command": "ifailsense closed-loop",
    "date": "2026-11-23T",
}
PAGE = "\n\n".join(
    ["# Loop", *(f"{report.begin_of(p)}\n{report.end_of(p)}" for p in report.PARTS), "The end.\n"]
)


@pytest.fixture
def places(tmp_path):
    """Two runs' folders, and docs with the page."""
    loop = all_of(tries_made_up("tiny@1", missed=1, false_alarms=1))
    rows = [made_up(i, i % 3 > 0, None if i % 3 else i % 8) for i in range(60)]
    for name, file, figures in (
        ("loop", FIGURES, loop),
        ("early", early.EARLY, early_figures.figures(rows, resamples=50)),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(json.dumps({"made": MADE, "figures": figures}))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "closed_loop.md").write_text(PAGE)
    return tmp_path


def arguments(places, *parts: str) -> list[str]:
    return [
        *(w for p in parts for w in (f"--{p}", str(places / p))),
        "--docs",
        str(places / "docs"),
    ]


def test_the_page_has_the_figures_and_can_be_made_again(places) -> None:
    assert report.main(arguments(places, "loop", "early")) == 0
    page = places / "docs" / "closed_loop.md"
    text = page.read_text()
    assert text.startswith("# Loop") and text.endswith("The end.\n")
    assert "| tiny@1 | 0.900 (" in text
    assert "| tiny@1 | 0.750 (" in text, "of the distance"
    assert "| 5% | on the way and at the end, one threshold |" in text
    assert "trial" not in text
    for plot in (report.LOOP_PLOT, report.EARLY_PLOT):
        assert str(plot) in text
        assert Image.open(places / "docs" / plot).size[0] > 500
    assert report.main(arguments(places)) == 0, "from the committed figures alone"
    assert page.read_text() == text


def test_one_part_can_be_renewed(places) -> None:
    assert report.main(arguments(places, "loop")) == 0
    content = json.loads((places / "docs" / report.RESULTS).read_text())
    assert list(content) == ["loop"]
    assert report.main(arguments(places, "early")) == 0
    assert list(json.loads((places / "docs" / report.RESULTS).read_text())) == ["loop", "early"]


def test_other_settings_are_called_a_trial(places) -> None:
    path = places / "loop" / FIGURES
    content = json.loads(path.read_text())
    content["made"]["fixed"] = False
    path.write_text(json.dumps(content))
    assert report.main(arguments(places, "loop")) == 0
    assert "**A trial with other settings" in (places / "docs" / "closed_loop.md").read_text()


def test_what_is_missing_is_one_line(places, capsys) -> None:
    assert report.main(arguments(places)) == 2
    assert "--loop" in capsys.readouterr().err
    (places / "docs" / "closed_loop.md").write_text("nothing")
    assert report.main(arguments(places, "loop")) == 2
    error = capsys.readouterr().err
    assert "no place" in error and error.count("\n") == 1
    (places / "docs" / "closed_loop.md").unlink()
    assert report.main(arguments(places, "loop")) == 2
    assert "--docs" in capsys.readouterr().err


def test_the_committed_page_has_places_for_both_parts() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / report.PAGE).read_text()
    for part in report.PARTS:
        assert text.count(report.begin_of(part)) == text.count(report.end_of(part)) == 1


# --- the film -------------------------------------------------------------------------------------


def test_a_film_of_a_rescue(stage, tmp_path) -> None:
    settings = load_settings()
    loaded = Loaded(settings, stage, [Watching(RiseDetector())])
    # The detector sees the red block rise; these are not all about lifting it.
    index, rows = next(
        (index, rows)
        for index in range(0, 120, 6)
        for rows in [list(carry_out(course_of(stage, index), loaded.monitors[0], settings))]
        if film.is_rescue(rows)
    )
    course = course_of(stage, index)
    frames = list(film.frames_of(course, rows, loaded))
    held = [seconds for _, seconds in frames if seconds > 1]
    assert len(held) == len(rows), "every verdict is shown for a while"
    assert frames[-1][1] > 1
    path = tmp_path / "film.gif"
    film.write_gif(path, frames)
    gif = Image.open(path)
    assert gif.size == frames[0][0].shape[1::-1]
    assert gif.n_frames > 4
    last = np.asarray(frames[-1][0])
    greens = (last[..., 1].astype(int) - last[..., 0] > 60).sum()
    assert greens > 20, "SUCCESS is green"


def course_of(stage, index: int) -> Course:
    return Course(stage, setup_of("dev", 7, index, "mild"))


def test_what_is_no_rescue() -> None:
    of_oracle = tries_made_up("oracle")
    assert not film.is_rescue([r for r in of_oracle if r.index == 0]), "nothing to mend"
    assert film.is_rescue([r for r in of_oracle if r.index == 9])
    assert not film.is_rescue([r for r in nobody() if r.index == 9]), "nobody saw it"


def test_a_wrong_option_of_the_film_is_one_line(capsys) -> None:
    assert film.main(["--split", "exam"]) == 2
    assert "--split" in capsys.readouterr().err
