"""`ifailsense evaluate` on bags and LeRobot data sets: every episode judged as `judge_bag` judges
it, with its label, and whatever is broken is one line while the rest is done.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ifailsense_ros import cli
from ifailsense_ros.core.checkpoint import CheckpointConfig, MontageSettings
from ifailsense_ros.core.detection import bare_config
from ifailsense_ros.core.effects import TrackerConfig
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.core.montage import fit_cell
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason, Vote, VoteValue
from ifailsense_ros.data.bag_sidecar import write_sidecar
from ifailsense_ros.data.readers import open_reader
from ifailsense_ros.data.replay import BagReplay
from ifailsense_ros.data.rosbag import read_events
from ifailsense_ros.evaluate import run
from ifailsense_ros.evaluate.labels import LabelBook, LabelNote, write_labels
from ifailsense_ros.evaluate.offline import BagEpisodes, geometry_of, judge_bag
from ifailsense_ros.evaluate.results import (
    METRICS,
    PROBLEMS,
    RESULTS,
    Result,
    read_problems,
    read_results,
)

LEROBOT = Path(__file__).parent / "readers" / "lerobot-0.4.4"
SECOND = 10**9


def settings(name: str, num_pov: int = 2, keyframes: int = 4, cell: int = 8) -> CheckpointConfig:
    return bare_config(name, MontageSettings(keyframes, num_pov, cell, cell))


class StepReader:
    """Says SUCCESS iff the last keyframe shows at least step 15 (red) of the episode."""

    def __init__(self, name: str = "steps", **montage: int) -> None:
        self.config = settings(name, **montage)
        self.model_id = f"{name}@0"
        self.judged: list[Episode] = []

    def judge(self, episode: Episode) -> Judgement:
        self.judged.append(episode)
        success = int(episode.keyframes[-1].views[0][0, 0, 0]) >= 15
        value = VoteValue.SUCCESS if success else VoteValue.FAIL
        outcome = Outcome.SUCCESS if success else Outcome.FAILURE
        p = 0.9 if success else 0.2
        return Judgement(outcome, p_success=p, votes=(Vote("vlm", value, p, 1.0),))


class Lab:
    """An evaluation with detectors of our own, in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._patch = monkeypatch

    def run(self, *paths: str | Path, detectors: tuple = (), **options: object) -> run.Evaluation:
        detectors = detectors or (StepReader(),)

        def load(which: run.Detectors) -> tuple:
            return detectors

        load.cache_clear = lambda: None
        self._patch.setattr(run, "load_detectors", load)
        names = run.Detectors(tuple(d.model_id for d in detectors))
        return run.evaluate(
            [str(p) for p in paths], names, self.folder, workers=0, progress=False, **options
        )

    @property
    def rows(self) -> list[Result]:
        return read_results(self.folder)[0]

    @property
    def problems(self) -> list[tuple[str, str]]:
        return [(p.where, p.what) for p in read_problems(self.folder)]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path / "out", monkeypatch)


@pytest.fixture
def bags(tmp_path: Path, bag_maker: Callable, episode_writer: Callable) -> Path:
    """Three bags of two episodes each; of every bag's two the first goes on to step 20, the second
    stops at step 10.
    """
    for name, start in (("a", 100.0), ("b", 200.0), ("deep/c", 300.0)):
        (tmp_path / "bags" / name).parent.mkdir(parents=True, exist_ok=True)
        with bag_maker(f"bags/{name}", mcap=name != "b") as bag:
            for k, seconds in enumerate((2.0, 1.0)):
                episode_writer(
                    bag,
                    start + 10 * k,
                    seconds=seconds,
                    episode_id=uuid.UUID(int=round(start) + k),
                    instruction="lift the red block",
                )
                bag.message("/episode/success", "std_msgs/msg/Bool", start + 10 * k + 5, data=not k)
    return tmp_path / "bags"


# --- bags


def test_every_episode_of_a_folder_of_bags_is_judged_as_it_would_be_alone(
    bags: Path, lab: Lab
) -> None:
    found = lab.run(bags)
    assert [(r.path, r.key) for r in lab.rows] == [
        (str(bags), key) for key in ("a/0", "a/1", "b/0", "b/1", "deep/c/0", "deep/c/1")
    ]
    alone = [
        verdict for name in ("a", "b", "deep/c") for verdict in judge_bag(bags / name, StepReader())
    ]
    for row, (verdict, episode) in zip(
        lab.rows, ((v.verdict, v.episode) for v in alone), strict=True
    ):
        assert row.outcome == verdict.judgement.outcome
        assert row.p_success == verdict.judgement.p_success
        assert (row.sources, row.votes, row.weights) == (("vlm",), (int(row.outcome == 1),), (1.0,))
        assert (row.start_ns, row.end_ns) == (episode.start_ns, verdict.end_ns)
        assert row.instruction == "lift the red block"
        assert (row.category, row.detector) == ("lifting", "steps@0")
    assert [r.label for r in lab.rows] == [True, False] * 3  # by the topic
    assert [r.kind for r in lab.rows] == ["expert", ""] * 3
    assert [r.group for r in lab.rows] == ["a", "a", "b", "b", "deep/c", "deep/c"]
    assert found.figures["steps@0"]["all"]["accuracy"] == 1.0
    assert found.problems == [] and found.rows == 6


def test_the_montage_is_what_was_judged(bags: Path, lab: Lab) -> None:
    detector = StepReader(cell=16)
    lab.run(bags / "a", detectors=(detector,))
    for row, episode in zip(lab.rows, detector.judged, strict=True):
        picture = cv2.imread(str(lab.folder / row.montage))
        assert picture.shape == (32, 64, 3)
        for column, keyframe in enumerate(episode.keyframes):
            seen = picture[4:12, 16 * column + 4 : 16 * column + 12, 2].mean()
            assert abs(seen - keyframe.views[0][0, 0, 0]) < 6
    assert len({row.montage for row in lab.rows}) == 2


def test_no_pictures_where_none_are_wanted(bags: Path, lab: Lab) -> None:
    lab.run(bags, montages=False)
    assert {row.montage for row in lab.rows} == {""}
    assert not (lab.folder / "montages").exists()


def test_detectors_of_other_shapes_judge_the_same_episodes(bags: Path, lab: Lab) -> None:
    three = (StepReader(), StepReader("one", num_pov=1, keyframes=3), StepReader("twin"))
    lab.run(bags, detectors=three)
    assert [r.detector for r in lab.rows[:3]] == ["steps@0", "one@0", "twin@0"]
    assert len(lab.rows) == 18
    assert [len(e.keyframes) for e in three[1].judged] == [3] * 6
    assert {len(k.views) for e in three[1].judged for k in e.keyframes} == {1}
    # The first and the last see the same pictures, read once.
    assert all(a is b for a, b in zip(three[0].judged, three[2].judged, strict=True))
    first, one, twin = lab.rows[:3]
    assert first.montage == twin.montage != one.montage


def test_a_bag_of_one_camera_is_enough_for_one_pov(
    bag_maker: Callable, episode_writer: Callable, lab: Lab
) -> None:
    with bag_maker("single") as bag:
        episode_writer(bag, 100.0, povs=(0,))
    lab.run(bag.path, detectors=(StepReader("one", num_pov=1),))
    assert [r.outcome for r in lab.rows] == [1]
    lab.run(bag.path)
    assert lab.rows == []
    ((where, what),) = lab.problems
    assert where == str(bag.path) and what.startswith("topic /gripper/image is missing")


def test_the_sidecar_bounds_names_and_labels_episodes(
    bag_maker: Callable, episode_writer: Callable, lab: Lab
) -> None:
    with bag_maker("long") as bag:
        episode_writer(bag, 100.0, seconds=6.0)
    entries = [
        {"start": 0.0, "end": 1.0, "instruction": "push it left", "label": "failure",
         "kind": "incomplete_grasp", "group": "scene 4", "key": "drop"},
        {"start": 1.5, "end": 5.0, "instruction": "push it right", "label": "success"},
    ]  # fmt: skip
    write_sidecar(bag.path, entries)
    lab.run(bag.path)
    first, second = lab.rows
    assert (first.key, first.instruction, first.label) == ("long/drop", "push it left", False)
    assert (first.kind, first.group, first.category) == ("incomplete_grasp", "scene 4", "pushing")
    assert (second.key, second.label, second.kind) == ("long/1", True, "expert")
    assert second.end_ns - second.start_ns == 3.5 * SECOND
    assert [r.outcome for r in lab.rows] == [Outcome.FAILURE, Outcome.SUCCESS]


def test_what_the_tracker_settles_is_a_row_that_counts_as_wrong(
    bag_maker: Callable, episode_writer: Callable, lab: Lab
) -> None:
    with bag_maker("short") as bag:
        episode_writer(bag, 100.0, seconds=0.1, episode_id=uuid.UUID(int=1))
        episode_writer(bag, 110.0, episode_id=uuid.UUID(int=2))
    lab.run(bag.path, labels=None)
    first, second = lab.rows
    assert (first.outcome, first.reason) == (Outcome.UNKNOWN, Reason.TOO_FEW_KEYFRAMES)
    assert first.detail and first.montage == "" and first.start_ns
    assert (second.outcome, second.label) == (Outcome.SUCCESS, None)
    figures = json.loads((lab.folder / METRICS).read_text())["detectors"]["steps@0"]
    assert figures["all"] is None
    assert figures["unlabelled"] == {"n": 2, "UNKNOWN": 1, "SUCCESS": 1, "FAILURE": 0}
    assert figures["unknown"] == {"TOO_FEW_KEYFRAMES": 1}


def test_a_detector_that_fails_costs_its_own_rows_only(bags: Path, lab: Lab) -> None:
    class Broken(StepReader):
        def judge(self, episode: Episode) -> Judgement:
            raise RuntimeError("a wire is loose")

    lab.run(bags / "a", detectors=(Broken("broken"), StepReader()))
    broken, fine = lab.rows[:2]
    assert (broken.outcome, broken.reason) == (Outcome.UNKNOWN, Reason.DETECTOR_ERROR)
    assert "a wire is loose" in broken.detail
    assert fine.outcome == Outcome.SUCCESS


# --- pictures are decoded late, and yet they are the live node's


def _live(path: Path, detector: StepReader) -> list[Episode]:
    """The episodes as a node that decodes whatever comes would ask about them."""
    seen: list[Episode] = []

    def judge(episode: Episode) -> Judgement:
        seen.append(episode)
        return Judgement(Outcome.SUCCESS, p_success=1.0)

    geometry = geometry_of(detector)
    replay = BagReplay(TrackerConfig(), judge, shrink=lambda view: fit_cell(view, geometry))
    list(replay.run(read_events(path)))
    return seen


def _assert_same(ours: list[Episode], live: list[Episode]) -> None:
    assert [e.keyframe_stamps_ns for e in ours] == [e.keyframe_stamps_ns for e in live]
    for a, b in zip(ours, live, strict=True):
        for mine, theirs in zip(a.keyframes, b.keyframes, strict=True):
            for x, y in zip(mine.views, theirs.views, strict=True):
                np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("broken", [[], [0], [7], [20], [3, 13, 20], list(range(18))])
@pytest.mark.parametrize("compressed", [True, False])
def test_broken_pictures_are_passed_over_as_the_live_node_does(
    bag_maker: Callable, broken: list[int], compressed: bool
) -> None:
    with bag_maker() as bag:
        bag.episode(99.9, 1, uuid.UUID(int=1), "lift it")
        for step in range(21):
            for pov, topic in enumerate(("/exo/image", "/gripper/image")):
                at = 100 + 0.1 * step
                rgb = np.full((24, 32, 3), (step, 100 * pov, 7), np.uint8)
                if step in broken and pov == step % 2:
                    bag.message(
                        topic,
                        f"sensor_msgs/msg/{'CompressedImage' if compressed else 'Image'}",
                        at,
                        header=bag.header(at),
                        **({"format": "jpeg", "data": np.zeros(9, np.uint8)} if compressed else
                           {"height": 24, "width": 32, "encoding": "32FC1", "is_bigendian": 0,
                            "step": 128, "data": np.zeros(24 * 128, np.uint8)}),
                    )  # fmt: skip
                elif compressed:
                    bag.png(topic, at, rgb)
                else:
                    bag.image(topic, at, rgb)
        bag.episode(102.1, 2, uuid.UUID(int=1), "lift it")
    detector = StepReader()
    episodes = BagEpisodes(bag.path, TrackerConfig(), geometry_of(detector))
    ours = [v.episode for v in episodes if v.episode is not None]
    _assert_same(ours, _live(bag.path, detector))
    assert len(ours) == (0 if len(broken) == 18 else 1)


@pytest.mark.parametrize("seed", [12, 24, 61])
def test_broken_candidates_of_a_long_episode_are_passed_over_too(
    bag_maker: Callable, seed: int
) -> None:
    """Of more pairs than are kept, which ones stay depends on the broken ones among them: with
    these seeds another one would be a keyframe if they were only missed at the end.
    """
    rng = np.random.default_rng(seed)
    with bag_maker() as bag:
        bag.episode(99.9, 1, uuid.UUID(int=1), "lift it")
        at = 100.0
        for step in range(150):
            at += rng.uniform(0.05, 0.3)
            for pov, topic in enumerate(("/exo/image", "/gripper/image")):
                rgb = np.full((8, 8, 3), (step, pov, 7), np.uint8)
                data = cv2.imencode(".png", rgb[..., ::-1])[1].reshape(-1)
                if rng.random() < 0.05:
                    data = data[: len(data) // 2]
                bag.message(
                    topic,
                    "sensor_msgs/msg/CompressedImage",
                    at,
                    header=bag.header(at),
                    format="png",
                    data=data,
                )
        bag.episode(at + 0.1, 2, uuid.UUID(int=1), "lift it")
    detector = StepReader()
    (verdict,) = judge_bag(bag.path, detector)
    _assert_same([verdict.episode], _live(bag.path, detector))


def test_only_keyframes_are_decoded(bag_maker: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from ifailsense_ros.core import cdr_pictures

    with bag_maker() as bag:
        bag.episode(99.9, 1, uuid.UUID(int=1), "lift it")
        for step in range(200):
            for pov, topic in enumerate(("/exo/image", "/gripper/image")):
                bag.png(topic, 100 + 0.1 * step, np.full((24, 32, 3), (step, pov, 7), np.uint8))
        bag.episode(120.0, 2, uuid.UUID(int=1), "lift it")
    decoded = []
    real = cdr_pictures.decode_checked
    monkeypatch.setattr(
        cdr_pictures, "decode_checked", lambda checked: decoded.append(1) or real(checked)
    )
    detector = StepReader()
    (verdict,) = judge_bag(bag.path, detector)
    assert len(decoded) == 8
    monkeypatch.undo()
    _assert_same([verdict.episode], _live(bag.path, detector))


# --- what is broken


@pytest.fixture
def battered(bags: Path, bag_maker: Callable, episode_writer: Callable) -> Path:
    """`bags` among bags of which every one is broken in another way."""
    for name in ("corrupt", "corrupt3", "truncated", "unindexed", "no_topic", "empty", "sidecar"):
        with bag_maker(f"bags/{name}", mcap=name != "corrupt3") as bag:
            povs = (0,) if name == "no_topic" else (0, 1)
            if name == "empty":
                bag.topic("/episode", "ifailsense_ros/msg/EpisodeEvent")
                for topic in ("/exo/image", "/gripper/image"):
                    bag.image(topic, 100.0, np.zeros((4, 4, 3), np.uint8))
            else:
                episode_writer(bag, 100.0, povs=povs)
    (mcap,) = (bags / "corrupt").glob("*.mcap")
    data = bytearray(mcap.read_bytes())
    data[len(data) // 3 : len(data) // 2] = b"\xff" * (len(data) // 2 - len(data) // 3)
    mcap.write_bytes(data)
    (db3,) = (bags / "corrupt3").glob("*.db3")
    db3.write_bytes(db3.read_bytes()[:4096] + b"\x13" * 20000)
    (mcap,) = (bags / "truncated").glob("*.mcap")
    mcap.write_bytes(mcap.read_bytes()[: mcap.stat().st_size // 2])
    (bags / "unindexed" / "metadata.yaml").unlink()
    write_sidecar(bags / "sidecar", [{"label": "success"}, {"label": "failure"}])
    return bags


def test_broken_bags_are_one_line_each_and_the_rest_is_judged(battered: Path, lab: Lab) -> None:
    found = lab.run(battered)
    assert [r.key for r in lab.rows] == ["a/0", "a/1", "b/0", "b/1", "deep/c/0", "deep/c/1"]
    said = dict(lab.problems)
    expected = {
        "corrupt": "cannot be read as a rosbag2",
        "corrupt3": "cannot be read as a rosbag2",
        "truncated": "cannot be read as a rosbag2",
        "unindexed": "not a rosbag2, metadata.yaml is missing: the recorder was killed: run `ros2",
        "no_topic": "topic /gripper/image is missing (there are: ",
        "empty": "no episode was started in it",
        "sidecar": "2 entries in the sidecar, 1 episodes in the bag",
    }
    assert set(said) == {str(battered / name) for name in expected}
    for name, text in expected.items():
        what = said[str(battered / name)]
        assert what.startswith(text), (name, what)
        assert "\n" not in what
    assert len(found.problems) == len(expected)
    assert found.figures["steps@0"]["all"]["accuracy"] == 1.0


def test_what_came_before_the_damage_is_judged(
    bag_maker: Callable, episode_writer: Callable, lab: Lab
) -> None:
    with bag_maker("half") as bag:
        episode_writer(bag, 100.0)
        bag.image("/exo/image", 105.0, np.zeros((4, 4, 3), np.uint8))
        bag.raw("/episode", "ifailsense_ros/msg/EpisodeEvent", 110.0, b"\0\1\0\0")
        episode_writer(bag, 120.0)
    lab.run(bag.path)
    assert [r.key for r in lab.rows] == ["half/0"]
    ((where, what),) = lab.problems
    assert where == str(bag.path) and what.startswith("a message on /episode is damaged")


def test_encodings_may_differ_from_picture_to_picture(bag_maker: Callable, lab: Lab) -> None:
    with bag_maker("mixed") as bag:
        bag.episode(99.9, 1, uuid.UUID(int=1), "lift it")
        for step in range(21):
            at = 100 + 0.1 * step
            rgb = np.full((24, 32, 3), (step, 50, 7), np.uint8)
            encoding, data = [("rgb8", rgb), ("bgr8", rgb[..., ::-1]), ("mono8", rgb[..., 0])][
                step % 3
            ]
            bag.message(
                "/exo/image",
                "sensor_msgs/msg/Image",
                at,
                header=bag.header(at),
                height=24,
                width=32,
                encoding=encoding,
                is_bigendian=0,
                step=data[0].size,
                data=np.ascontiguousarray(data).reshape(-1),
            )
            bag.png("/gripper/image", at, rgb)
        bag.episode(102.1, 2, uuid.UUID(int=1), "lift it")
    detector = StepReader()
    lab.run(bag.path, detectors=(detector,))
    (episode,) = detector.judged
    assert [int(k.views[0][0, 0, 0]) for k in episode.keyframes] == [0, 7, 13, 20]
    assert lab.problems == []


def test_two_bags_that_use_one_key(bags: Path, lab: Lab) -> None:
    for name in ("a", "b"):
        write_sidecar(bags / name, [{"key": f"try {k}", "label": "success"} for k in range(2)])
    lab.run(bags)
    assert [r.key for r in lab.rows] == ["bags/try 0", "bags/try 1", "deep/c/0", "deep/c/1"]
    assert [where for where, _ in lab.problems] == [f"{bags}: bags/try {k}" for k in range(2)]


# --- labels


def test_a_file_of_labels_beats_the_data_and_needs_no_new_judging(
    bags: Path, lab: Lab, tmp_path: Path
) -> None:
    detector = StepReader()
    lab.run(bags, detectors=(detector,))
    notes = {
        ("bags", "a/0"): LabelNote(False, kind="dropped", category="lifting high"),
        ("bags", "a/1"): LabelNote(True),
        ("bags", "b/0"): LabelNote(None),
        ("bags", "b/7"): LabelNote(True),
        ("elsewhere", "x/0"): LabelNote(True),
    }
    write_labels(tmp_path / "labels.csv", notes)
    found = lab.run(bags, detectors=(detector,), labels=LabelBook(tmp_path / "labels.csv"))
    assert len(detector.judged) == 6
    rows = {r.key: r for r in lab.rows}
    assert (rows["a/0"].label, rows["a/0"].kind) == (False, "dropped")
    assert rows["a/0"].category == "lifting high"
    assert (rows["a/1"].label, rows["b/0"].label, rows["b/1"].label) == (True, None, False)
    figures = found.figures["steps@0"]
    assert figures["all"]["n"] == 5 and figures["unlabelled"]["n"] == 1
    assert figures["failure_class"]["dropped"]["failure_recall"] == 0.0
    assert figures["category"]["lifting high"]["accuracy"] == 0.0
    assert [where for where, _ in lab.problems] == [f"{bags}: b/7", "elsewhere"]


def test_another_instruction_is_asked_about_and_judged_anew(
    bags: Path, lab: Lab, tmp_path: Path
) -> None:
    detector = StepReader()
    lab.run(bags, detectors=(detector,))
    notes = {("bags", "a/0"): LabelNote(False, instruction="open the drawer")}
    write_labels(tmp_path / "labels.yaml", notes)
    lab.run(bags, detectors=(detector,), labels=LabelBook(tmp_path / "labels.yaml"))
    assert "open the drawer" in {e.instruction for e in detector.judged}
    first, second = lab.rows[:2]
    assert (first.instruction, first.category) == ("open the drawer", "opening_closing")
    assert second.instruction == "lift the red block"


# --- data sets


def test_a_lerobot_data_set_in_jobs_of_some_episodes(lab: Lab) -> None:
    pytest.importorskip("av")
    detector = StepReader()
    found = lab.run(f"lerobot:{LEROBOT}?label=success", detectors=(detector,))
    assert found.rows == len(detector.judged) > 1
    assert [r.key for r in lab.rows] == [f"{LEROBOT.name}/{n}" for n in range(found.rows)]
    records = list(open_reader(f"lerobot:{LEROBOT}?label=success"))
    assert [r.label for r in lab.rows] == [record.success for record in records]
    assert [r.instruction for r in lab.rows] == [record.instruction for record in records]
    lab.run(f"lerobot:{LEROBOT}?label=success&episodes=1:2", detectors=(detector,))
    assert [r.key for r in lab.rows] == [f"{LEROBOT.name}/1"]


def test_fewer_cameras_than_the_detector_wants_is_said(lab: Lab) -> None:
    pytest.importorskip("av")
    lab.run(f"lerobot:{LEROBOT}?gripper=none")
    assert lab.rows == []
    ((where, what),) = lab.problems
    assert "1 PoV" in what and "steps@0 looks at 2" in what and where.startswith("lerobot:")


# --- mistakes, and the command


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["nothing"], "no such file or folder"),
        (["rosbag:nothing"], "no such file or folder"),
        (["noformat:bags"], "no such file or folder"),
        (["bags", "bags"], "is given twice"),
        (["rosbag:bags?colour=red"], "no option 'colour'"),
        (["nobags"], "no rosbag2 in it"),
    ],
)
def test_mistakes_are_told_before_anything_is_judged(
    bags: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch, paths: list[str], said: str
) -> None:
    monkeypatch.chdir(bags.parent)
    (bags.parent / "nobags").mkdir()
    detector = StepReader()
    with pytest.raises((ConfigError, DataError), match=said) as caught:
        lab.run(*paths, detectors=(detector,))
    assert "\n" not in str(caught.value)
    assert not detector.judged and not lab.folder.exists()


def test_the_command_prints_tables_and_writes_the_folder(
    battered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    detectors = ["baseline:always-success", "baseline:always-failure"]
    command = ["evaluate", str(battered), "--out", str(out), "--workers", "0", "--detector"]
    status = cli.main([*command, *detectors, "--num-pov", "2", "--no-report"])
    printed = capsys.readouterr()
    assert status == 1
    for text in ("accuracy", "0.500", "always-success", "Accuracy by task category", "lifting"):
        assert text in printed.out, text
    assert f"{battered / 'truncated'}: cannot be read" in printed.err.replace("\n", "")
    assert {p.name for p in out.iterdir()} >= {RESULTS, METRICS, PROBLEMS, "montages"}
    metrics = json.loads((out / METRICS).read_text())
    assert metrics["problems"] == 7
    assert list(metrics["detectors"]) == metrics["made"]["detectors"]
    assert metrics["made"]["command"].startswith("ifailsense evaluate")
    assert cli.main(["evaluate", str(tmp_path / "none"), "--out", str(out)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_detector_given_twice_or_of_another_pov(tmp_path: Path) -> None:
    run.load_detectors.cache_clear()
    twice = run.Detectors(("baseline:always-success", "baseline:always-success"))
    with pytest.raises(ConfigError, match="is there already"):
        run.load_detectors(twice)
    with pytest.raises(ConfigError, match="looks at 2 PoV, not 1"):
        run.load_detectors(run.Detectors(("baseline:always-success,pov=2",), num_pov=1))
    (one,) = run.load_detectors(run.Detectors(("baseline:always-success",), num_pov=1))
    assert one.config.montage.num_pov == 1
    run.load_detectors.cache_clear()


def test_results_do_not_depend_on_the_number_of_workers(bags: Path, tmp_path: Path) -> None:
    which = run.Detectors(("baseline:always-success",))
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        run.evaluate([str(bags)], which, folder, workers=workers, progress=False)
    one, two = (tmp_path / str(n) / RESULTS for n in (0, 2))
    assert one.read_bytes() == two.read_bytes()
    assert len(read_results(tmp_path / "2")[0]) == 6


def test_results_say_how_they_were_made(bags: Path, lab: Lab) -> None:
    lab.run(bags)
    before = (lab.folder / RESULTS).read_bytes()
    meta = read_results(lab.folder)[1]
    assert meta["detectors"] == ["steps@0"] and meta["paths"] == [str(bags)]
    assert meta["topics"]["exo"] == "/exo/image"
    lab.run(bags)
    assert (lab.folder / RESULTS).read_bytes() == before
    assert all(dataclasses.replace(r) == r for r in lab.rows)
