"""Files of labels: both forms, found under any name of a path, and one line for every mistake."""

import pytest

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.evaluate.labels import LabelBook, LabelNote, read_labels, write_labels

LABELS = {
    ("bags/a", "a/0"): LabelNote(True),
    ("bags/a", "a/1"): LabelNote(False, "öffne, bitte", "opening_closing", "incomplete_grasp"),
    ("lerobot:set", "set/3"): LabelNote(None),
}


@pytest.mark.parametrize("name", ["labels.csv", "labels.yaml", "below/labels.yml"])
def test_labels_come_back_as_they_were(tmp_path, name):
    write_labels(tmp_path / name, LABELS)
    assert read_labels(tmp_path / name) == LABELS
    assert [p.name for p in (tmp_path / name).parent.iterdir() if p.is_file()] == [
        name.split("/")[-1]
    ]


def test_three_columns_are_enough_and_a_spreadsheet_may_have_written_them(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_bytes(b"\xef\xbb\xbfkey,path,label\r\na/0,bags,Success\r\na/1,bags,unsure\r\n")
    assert read_labels(file) == {
        ("bags", "a/0"): LabelNote(True),
        ("bags", "a/1"): LabelNote(None),
    }


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("l.csv", "path,label\nx,success\n", "no column 'key'"),
        ("l.csv", "path,key,label\nx,0,good\n", "line 2: label: 'good' is none of success"),
        ("l.csv", "path,key,label\nx,0\n", "line 2: has not as many fields"),
        ("l.csv", "path,key,label\nx,0,a,b\n", "line 2: has not as many fields"),
        ("l.csv", "path,key,label\nx,0,success\nx,0,failure\n", "line 3: x 0 has a label already"),
        ("l.csv", 'path,key,label\n"x,0,success\n', "is not CSV"),
        ("l.csv", "path,key,label,colour\nx,0,success,red\n", "no field 'colour'"),
        ("l.csv", "path,key,label\n,0,success\n", "path is missing"),
        ("l.yaml", "labels: [", "is not YAML"),
        ("l.yaml", "- path: x", "must hold one list"),
        ("l.yaml", "labels: [x]", "entry 0: must hold fields"),
        ("l.yaml", "labels: [{path: x, key: 0, label: success}]", "key: 0 is not a text"),
    ],
)
def test_mistakes_are_one_line_that_names_the_place(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_labels(tmp_path / name)
    assert said in str(caught.value) and name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_of_labels(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match=r"\.yaml or a \.csv"):
        read_labels(tmp_path / "labels.txt")


def test_a_path_is_found_as_given_relative_to_the_file_and_behind_a_spec(tmp_path, monkeypatch):
    (tmp_path / "lab" / "bags").mkdir(parents=True)
    (tmp_path / "lab" / "set").mkdir()
    file = tmp_path / "lab" / "labels.csv"
    write_labels(
        file,
        {
            ("bags", "a/0"): LabelNote(True),
            ("lerobot:set?exo=top", "set/1"): LabelNote(False),
            ("/nowhere/else", "x"): LabelNote(True),
        },
    )
    book = LabelBook(file)
    monkeypatch.chdir(tmp_path)
    for name in ("bags", "lab/bags", "lab/bags/", str(tmp_path / "lab/bags"), "rosbag:lab/bags"):
        assert book.of(name) == {"a/0": LabelNote(True)}, name
    assert book.of("lerobot:lab/set") == {"set/1": LabelNote(False)}
    assert book.of("lab") == {}
    assert book.unknown_paths(["lab/bags", "lab/set"]) == ["/nowhere/else"]
