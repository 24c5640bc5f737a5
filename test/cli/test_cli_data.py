"""`ifailsense data build|show|check`: what is printed, and with which exit status."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: the `train` extra")

from ifailsense_ros import cli

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))
from fake_episodes import store_row, write_store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of 14 training and 7 test episodes."""
    write_store(tmp_path / "store", [store_row(n) for n in range(14)])
    write_store(tmp_path / "store", [store_row(n, "test") for n in range(7)])
    return tmp_path / "store"


def run(capsys: pytest.CaptureFixture, *words: object) -> tuple[int, list[str], list[str]]:
    """Exit status, and the lines on stdout and stderr (without progress bars)."""
    status = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line and "episode/s" not in line]
    return status, out.splitlines(), errors


def test_build_check_show(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "set"
    command = ("data", "build", "--from", f"store:{store}", "--out", out, "--seed", 3)
    status, lines, errors = run(capsys, *command)
    assert (status, errors) == (0, [])
    summary = json.loads((out / "manifest.json").read_text())
    assert lines == [
        f"{out}: 42 pairs that count, of 42",
        f"manifest.parquet {summary['sha256']['manifest.parquet']}",
    ]
    assert summary["command"] == ["ifailsense", *map(str, command)]
    assert run(capsys, *command)[1] == lines

    status, lines, _ = run(capsys, "data", "check", out)
    assert status == 0
    assert len(lines) == 12
    assert all(line.startswith("ok    ") for line in lines)

    status, lines, _ = run(capsys, "data", "show", out)
    assert status == 0
    assert "# Data set set" in lines
    assert lines[-1] == f"written to {out}"
    assert (out / "card.md").exists()
    assert (out / "sheet.png").exists()


def test_check_says_what_is_broken(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("train", "test"):
        words = ("--from", f"store:{store}?split=train", "--as-split", name)
        assert run(capsys, "data", "build", *words, "--out", tmp_path / name)[0] == 0
    status, lines, _ = run(capsys, "data", "check", tmp_path / "train", tmp_path / "test")
    failed = [line for line in lines if line.startswith("FAIL")]
    assert status == 1
    assert [line.split()[1] for line in failed] == ["groups", "episodes", "instructions"]
    words = ("data", "check", tmp_path / "train", "--no-pictures", "--shared-phrasings")
    status, lines, _ = run(capsys, *words)
    assert status == 0
    assert not {"pictures", "instructions"} & {line.split()[1] for line in lines}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--from", "nothing"], "'nothing' is not a data set"),
        (["--from", "store:/no/where"], "no such file or folder"),
        (["--from", "store:STORE", "--keyframes", "0"], "--keyframes 0: must be at least 1"),
        (["--from", "store:STORE", "--keyframes", "8"], "8 of 2 are asked for"),
        (["--from", "store:STORE", "--split", "train=2"], "--split 'train=2'"),
        (["--from", "store:STORE", "--as-split", "a b"], "--as-split 'a b'"),
    ],
)
def test_a_mistake_is_one_line(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], complaint: str
) -> None:
    words = [word.replace("STORE", str(store)) for word in words]
    status, out, errors = run(capsys, "data", "build", *words, "--out", tmp_path / "set")
    assert (status, out) == (2, [])
    assert len(errors) == 1
    assert errors[0].startswith("ifailsense: ")
    assert complaint in errors[0]


def test_no_data_set(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for command in ("check", "show"):
        status, _, errors = run(capsys, "data", command, tmp_path)
        assert status == 2
        assert "make the data set with `ifailsense data build`" in errors[0]


def test_problems_are_pointed_at(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shard = store / "test-000000-000007.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    words = ("data", "build", "--from", f"store:{store}", "--out", tmp_path / "set")
    assert run(capsys, *words)[0] == 2
    status, lines, _ = run(capsys, *words[:-1], tmp_path / "other", "--keep-going")
    assert status == 0
    assert lines[1] == f"1 problems: see {tmp_path / 'other' / 'problems.parquet'}"


def commands_of_make_data() -> list[tuple[tuple[str, ...], set[str]]]:
    """Sub-command and options of each `ifailsense` call in scripts/make_data.sh."""
    script = (ROOT / "scripts" / "make_data.sh").read_text().replace("\\\n", " ")
    calls = re.findall(r"^\s*ifailsense (sim|data) ([\w-]+)(.*)$", script, re.MULTILINE)
    return [((group, name), set(re.findall(r"--[\w-]+", rest))) for group, name, rest in calls]


@pytest.mark.sim
def test_make_data_uses_commands_and_options_that_exist(capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("mujoco")
    calls = commands_of_make_data()
    assert {words for words, _ in calls} >= {
        ("sim", "record"),
        ("sim", "record-failures"),
        ("sim", "record-unseen"),
        ("data", "build"),
        ("data", "check"),
    }
    for words, options in calls:
        with pytest.raises(SystemExit) as stopped:
            cli.main([*words, "--help"])
        assert stopped.value.code == 0
        text = capsys.readouterr().out
        assert {option for option in options if option not in text} == set(), words
