"""What the records of a run say, and what they must not."""

import json
from dataclasses import dataclass

import pytest

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.train.provenance import Trail, command_of, program_version


@dataclass(frozen=True)
class Settings:
    rank: int = 16
    layers: tuple[int, ...] = (1, 2)


def test_a_command_keeps_its_words_and_no_folder_of_the_machine():
    argv = ["--data", "/home/me/data/smf", "--out=../runs/one two", "--recipe", "paper"]
    assert command_of(argv) == "ifailsense train --data smf '--out=one two' --recipe paper"
    assert command_of(["--base", "google/paligemma2"]).endswith("--base google/paligemma2")
    assert "/home" not in command_of(["--data=/home/me/smf"])


def test_the_program_says_its_version():
    assert program_version().startswith("ifailsense_ros ")


def test_a_stage_is_known_by_its_settings_and_by_what_came_before(tmp_path):
    def trail(data="a", base="b", first=16):
        made = Trail(tmp_path, {"data": data})
        made.made_from = base
        assert made.folder("stage1", 0, Settings(first)) == tmp_path / "stage1"
        return made.folder("stage1", 1, Settings())

    assert trail() == trail() == tmp_path / "stage1-1"
    for changed, said in (
        ({"data": "c"}, "stage1: was trained with another data set"),
        ({"base": "c"}, "stage1: was trained with another base or earlier stage"),
        ({"first": 8}, "stage1: was trained with another settings.rank"),
    ):
        with pytest.raises(ConfigError, match=said):
            trail(**changed)
    for file in (tmp_path / "stage1").iterdir():
        file.unlink()  # trained again with other settings: what came after does not fit any more
    with pytest.raises(ConfigError, match="stage1-1: was trained with another base or earlier"):
        trail(first=8)


def test_a_run_begun_by_an_earlier_program_goes_on(tmp_path):
    @dataclass(frozen=True)
    class Later(Settings):
        more: tuple[str, ...] = ("a",)

    def folders(settings):
        trail = Trail(tmp_path, {"data": "a"})
        return [trail.folder("stage1", phase, settings) for phase in (0, 1)]

    begun = folders(Settings())
    written = [(folder / "settings.json").read_bytes() for folder in begun]
    assert "more" not in json.loads(written[0])["settings"]
    assert folders(Later()) == begun  # the second stage names what the first was made from
    assert [(folder / "settings.json").read_bytes() for folder in begun] == written
    with pytest.raises(ConfigError, match=r"stage1: was trained with another settings\.more"):
        folders(Later(more=("b",)))


def test_a_record_without_settings_is_another_stage(tmp_path):
    folder = Trail(tmp_path, {}).folder("stage1", 0, Settings())
    (folder / "settings.json").write_text('{"made_from": ""}', encoding="utf-8")
    with pytest.raises(ConfigError, match="stage1: was trained with another settings"):
        Trail(tmp_path, {}).folder("stage1", 0, Settings())
